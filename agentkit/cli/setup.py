"""init, network, doctor."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import agentkit
import deai_agentkit
from agentkit import __version__
from agentkit.agent import Agent
from agentkit.cli import output
from agentkit.config import LOCAL_FILE, Settings
from agentkit.display.text import columns
from agentkit.embedded import discovery
from agentkit.errors import AgentKitError, ConfigError, MissingExtra, StateForked, Untrusted
from agentkit.keys import keystore

FIRST_CONFIG = """\
# agentkit: settings of this folder. Without `network` everything runs on the embedded network,
# with test money only. What you write here counts once you trust it: agentkit trust .
#
# network = "base-sepolia"
# [chain]
# rpc = "https://..."      # a JSON-RPC address of that network
# escrow = "0x..."         # your agentkit/payments/contracts/TaskEscrow.vy, to pay through escrow
# [networks.optimism]      # the wallet pays over x402 there too: docs/how-to/networks.md
# rpc = ["https://...", "https://..."]
# [wallet]
# keystore = "{keystore}"
# [allowance]
# per_run = "2 USDC"
# gas = "0.01 ETH"
# [memory]
# gateways = ["https://arweave.net", "https://ar-io.dev"]
# upload = "turbo"         # credits, or pay = "x402" with per_upload = "0.01 USDC"
# # upload = "l1"          # or bundles: jwk = "an AR wallet's file", total = "0.05 AR"
# seal_before_pay = "0.50 USDC"
"""

FIRST_GRAPH = """\
name = "hello"

[[nodes]]
name = "greet"
kind = "infer"
model = "smollm2-135m"
prompt = "Define blockchain in one sentence."
"""


@output.verb
def init(
    as_json: output.AsJson = False, config: output.Config = None, quiet: output.Quiet = False
) -> None:
    """Make a wallet, agentkit.toml and a first graph; nothing that is there is overwritten."""
    settings = Settings.read(config)
    path = settings.wallet.keystore.expanduser()
    made: dict[str, str] = {}
    if path.exists():
        made["wallet"] = f"{path} was there already"
    else:
        passphrase = settings.secret() or _ask_passphrase()
        address = keystore.create(path, passphrase).address
        made["wallet"] = f"{path} (address {address}; used once a real network is set)"
    first_config = FIRST_CONFIG.format(keystore=path)
    for name, text in ((LOCAL_FILE, first_config), (Path("graph.toml"), FIRST_GRAPH)):
        is_new = _write_new(name, text)
        made[name.name] = f"{name} written" if is_new else f"{name} was there already"
        if is_new and name == LOCAL_FILE:
            Settings.trust_written(name, text)
    steps = "next: agentkit plan graph.toml --budget '0.05 USDC'"
    output.result(made, f"{columns(list(made.items()))}\n\n{steps}", as_json=as_json)


def _ask_passphrase() -> str:
    if not sys.stdin.isatty():
        raise ConfigError("a wallet needs a passphrase", hint="set AGENTKIT_PASSPHRASE")
    return str(typer.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True))


def _write_new(path: Path, text: str) -> bool:
    """Write a file unless there is one; returns whether it was written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


# -- the embedded network ------------------------------------------------------------------------

network = typer.Typer(no_args_is_help=True, help="The embedded network on this machine.")


@network.command("status")
@output.verb
def network_status(
    as_json: output.AsJson = False, config: output.Config = None, quiet: output.Quiet = False
) -> None:
    """Show whether the embedded network runs, and where."""
    folder = _folder(config)
    found = discovery.find(folder)
    if found is None:
        output.result({"running": False}, f"not running (folder {folder})", as_json=as_json)
        return
    public = {key: value for key, value in asdict(found).items() if key not in _SECRET}
    rows = [
        ("process", str(found.pid)),
        ("chain", str(found.network["rpc"])),
        ("gateway", found.gateway),
        *((f"node {name}", url) for name, url in found.nodes.items()),
        ("folder", str(folder)),
    ]
    output.result({"running": True, **public}, columns(rows), as_json=as_json)


_SECRET = {"token", "providers"}


@network.command("stop")
@output.verb
def network_stop(
    as_json: output.AsJson = False, config: output.Config = None, quiet: output.Quiet = False
) -> None:
    """Stop the embedded network; its state stays."""
    stopped = discovery.stop(_folder(config))
    output.result({"stopped": stopped}, "stopped" if stopped else "not running", as_json=as_json)


@network.command("reset")
@output.verb
def network_reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Stop the embedded network and forget its chain, keys and all it stored."""
    folder = _folder(config)
    if not yes and not sys.stdin.isatty():
        raise ConfigError(
            "stdin is not a terminal, so nobody can confirm", hint="use --yes to forget it all"
        )
    loses = f"its chain, its test money and its Arweave log, all in {folder}, will be gone"
    if not yes and not typer.confirm(f"{loses}: forget it all?", err=True):
        output.note("nothing was changed", quiet=quiet)
        return
    discovery.reset(folder)
    output.result({"reset": True}, "forgotten", as_json=as_json)


@network.command("serve")
@output.verb
def network_serve(
    port: Annotated[
        int,
        typer.Option(
            min=1,
            max=65_535 - 7,
            help="port of the network's control; chain, gateway, nodes follow it",
        ),
    ] = 8450,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Run the embedded network here, on fixed ports, until interrupted."""
    from agentkit.embedded.network import serve as serve_network

    folder = _folder(config)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    output.note(f"serving until Ctrl-C; see agentkit network status (folder {folder})", quiet=quiet)
    asyncio.run(serve_network(folder, idle=float("inf"), port=port))


def _folder(config: Path | None) -> Path:
    return Settings.read(config).network_home.expanduser()


# -- doctor --------------------------------------------------------------------------------------

EXTRAS = {
    "eth": ("chain", "the embedded chain"),
    "graphql": ("gateway", "the embedded Arweave gateway"),
    "xllamacpp": ("local", "inference on this machine"),
    "duckdb": ("data", "SQL tasks on this machine"),
}


@output.verb
def doctor(
    as_json: output.AsJson = False, config: output.Config = None, quiet: output.Quiet = False
) -> None:
    """Check everything in order and say what to do about what is wrong."""
    settings, checks = _read_settings(config)
    checks.append(_check("import", _import_line))
    checks += [_check(f"extra {extra}", _extra_line(m, extra)) for m, (extra, _) in EXTRAS.items()]
    if settings is not None:
        checks.append(_check("embedded network", lambda: _network_line(settings)))
        checks += asyncio.run(_agent_checks(settings))
    rows = [("", "check", "finding")]
    rows += [("ok" if ok else "!!", name, finding) for name, ok, finding in checks]
    data = [{"check": name, "ok": ok, "finding": finding} for name, ok, finding in checks]
    output.result(data, columns(rows), as_json=as_json)
    if not all(ok for _, ok, _ in checks):
        raise typer.Exit(1)


Check = tuple[str, bool, str]


def _check(name: str, look: Any) -> Check:
    try:
        return name, True, look()
    except AgentKitError as error:
        return name, False, _finding(error)


def _read_settings(config: Path | None) -> tuple[Settings | None, list[Check]]:
    """Return the settings and what was found about them; None where they cannot be used.

    Settings of a folder that is not trusted are a finding; the rest is checked without them.
    """
    try:
        settings = Settings.read(config)
    except Untrusted as request:
        own = Settings.read_own()
        return own, [
            ("folder", False, f"{request}; {request.hint}"),
            ("settings", True, f"without this folder's: {_settings_line(own)}"),
        ]
    except AgentKitError as error:
        return None, [("settings", False, f"{error}; {error.hint}")]
    return settings, [("settings", True, _settings_line(settings))]


def _settings_line(settings: Settings) -> str:
    told = ", ".join(f"{key} from {origin}" for key, origin in sorted(settings.origins.items()))
    return f"network {settings.network or 'embedded'}, home {settings.home}" + (
        f" ({told})" if told else ""
    )


def _import_line() -> str:
    others = deai_agentkit.other_owners()
    if others:
        raise ConfigError(deai_agentkit.describe_clash(others), hint=deai_agentkit.remedy(others))
    return f"agentkit {__version__} from {Path(agentkit.__file__).parent}"


def _extra_line(module: str, extra: str) -> Any:
    def look() -> str:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(extra, module)
        return EXTRAS[module][1]

    return look


def _network_line(settings: Settings) -> str:
    if settings.network is not None:
        return "not used"
    found = discovery.find(settings.network_home.expanduser())
    return f"runs as process {found.pid}" if found else "not running; starts when it is needed"


async def _fork_check(agent: Agent) -> Check:
    """Say whether another machine goes on with this wallet's state; changes nothing."""
    try:
        could_tell = await agent.memory.find_others()
    except StateForked as forked:
        return "other machines", False, f"{forked}; {forked.hint}"
    if not could_tell:
        return "other machines", True, "not known: no gateway can be asked"
    return "other machines", True, "none goes on with this wallet's state"


async def _agent_checks(settings: Settings) -> list[Check]:
    """Return what an agent with these settings finds; what one part lacks hides no other."""
    try:
        async with Agent(settings) as agent:
            checks = []
            for name, part in _PARTS.items():
                checks += await _part_checks(name, part, agent)
            return checks
    except AgentKitError as error:
        return [("wallet", False, _finding(error))]


async def _part_checks(
    name: str, part: Callable[[Agent], Awaitable[list[Check]]], agent: Agent
) -> list[Check]:
    try:
        return await part(agent)
    except AgentKitError as error:
        return [(name, False, _finding(error))]


def _finding(error: AgentKitError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)


async def _wallet_checks(agent: Agent) -> list[Check]:
    balances = await agent.balances()
    return [
        ("wallet", True, f"{balances.address} on {balances.network}"),
        ("balance", bool(balances.currency), str(balances.currency)),
        ("gas money", bool(balances.coin), str(balances.coin)),
    ]


async def _provider_checks(agent: Agent) -> list[Check]:
    checks = []
    for info in await agent.providers():
        finding = info.label or info.url if info.up else str(info.detail.get("error"))
        checks.append((f"provider {info.name}", info.up, finding))
    return checks


async def _memory_checks(agent: Agent) -> list[Check]:
    backup = await agent.memory.backup_status()
    return [
        ("memory", not backup.trouble, "; ".join(backup.sentences())),
        ("encryption", True, agent.memory.sealed_with),
        await _fork_check(agent),
    ]


_PARTS = {"wallet": _wallet_checks, "providers": _provider_checks, "memory": _memory_checks}
