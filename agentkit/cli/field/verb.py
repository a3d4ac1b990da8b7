"""field: ten canaries on a network, each told with its cost; a signed report; a check of one."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from agentkit import __version__
from agentkit.cli import output
from agentkit.cli.field import channel_canaries, other_canaries, report
from agentkit.cli.field.canary import CannotTry, Outcome
from agentkit.cli.field.ground import Ground
from agentkit.cli.field.purse import Purse
from agentkit.cli.field.report import Report
from agentkit.cli.field.stall import CALL, DEPOSIT, Stall, open_stall
from agentkit.cli.selling import node_key
from agentkit.config import Settings
from agentkit.display.text import columns, one_line
from agentkit.errors import AgentKitError, ConfigError
from agentkit.market.chain import SETTLEMENT, Network
from agentkit.money import Asset, Money
from agentkit.wiring import Parts, network_of, open_parts

EMBEDDED = "embedded"

MOST = 3 * DEPOSIT + 2 * CALL
"""Base units that all canaries together can take out of the wallet: three deposits, two calls."""

MOST_WORDS = 300
"""Characters of a reason that are kept: others write parts of it."""

Canary = Callable[[Ground], Awaitable[str]]

CANARIES: Mapping[str, Canary] = {
    "contract": channel_canaries.contract,
    "deposit": channel_canaries.deposit,
    "call": channel_canaries.call,
    "crash": channel_canaries.crash,
    "claim": channel_canaries.claim,
    "refund": channel_canaries.refund,
    "withdrawal": channel_canaries.withdrawal,
    "escrow": other_canaries.escrow,
    "upload": other_canaries.upload,
    "restore": other_canaries.restore,
}
"""The canaries, in their order: later ones build on what earlier ones did."""


@output.verb
def field(
    network: Annotated[
        str | None, typer.Argument(help="the network that the settings name, or `embedded`")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="check a report, offline")
    ] = None,
    budget: Annotated[str, typer.Option(help="the most that may leave the wallet")] = "1 USDC",
    facilitator: Annotated[
        str, typer.Option(metavar="URL", help="the x402 facilitator that settles and pays the gas")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="where to write the report, else ./field-NETWORK.json")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask about the cost")] = False,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Try every way of paying and remembering on a network, for cents; write a signed report.

    The wallet buys from two small sellers on this machine, whose keys lie in its home.  A canary
    that has to wait says until when: the same command then finishes it.
    """
    if check is not None:
        _show(_checked(check, network), as_json=as_json)
        return
    if network is None:
        raise ConfigError("no network is named", hint="give one, like `agentkit field embedded`")
    settings = Settings.read(config)
    _check_network(network, settings)
    most = Money.parse(budget)
    if settings.network is not None and not _agrees(network, settings, most, yes=yes, quiet=quiet):
        output.note("nothing was sent", quiet=quiet)
        return
    path = out or Path(f"field-{network}.json")
    found = asyncio.run(_try_all(settings, config, most, facilitator, path, quiet=quiet))
    output.note(f"the report is in {path}", quiet=quiet)
    _show(found, as_json=as_json)
    if any(outcome.status == "failed" for outcome in found.canaries):
        raise typer.Exit(1)


def _checked(path: Path, network: str | None) -> Report:
    """Return a report that its wallet signed, about the network if one is named."""
    found = report.check(path)
    if network is not None and network != found.network:
        raise ConfigError(
            f"{path} is about {found.network}, not {network}", hint="leave the network out"
        )
    return found


def _check_network(name: str, settings: Settings) -> None:
    """Raise ConfigError unless the settings are those of a network."""
    known = settings.network or EMBEDDED
    if name != known:
        change = "leave `network` out" if name == EMBEDDED else f'set network = "{name[:40]}"'
        raise ConfigError(
            f"the settings are for {known}, not for {name[:40]}",
            hint=f"{change} in agentkit.toml, or name a file with --config",
        )


def _agrees(network: str, settings: Settings, budget: Money, *, yes: bool, quiet: bool) -> bool:
    """Ask about the most that it can cost; raises ConfigError where nobody can be asked."""
    most = min(budget.units, MOST)
    gas = settings.allowance.gas
    gas_words = f"and {gas} for gas" if gas else "and nothing for gas (allowance.gas is not set)"
    told = f"on {network} at most {Money(most, Asset.named('USDC'))} leaves the wallet, {gas_words}"
    if yes:
        output.note(told, quiet=quiet)
        return True
    if not sys.stdin.isatty():
        raise ConfigError(f"{told}, and stdin is not a terminal to ask", hint="add --yes")
    return typer.confirm(f"{told}; most of it comes back: go on?", err=True)


# -- trying --------------------------------------------------------------------------------------


async def _try_all(
    settings: Settings,
    config: Path | None,
    budget: Money,
    facilitator: str,
    path: Path,
    *,
    quiet: bool,
) -> Report:
    """Try every canary, and write the report; the wallet and both stalls are open meanwhile."""
    began = int(time.time())
    network, found = await network_of(settings)
    url = facilitator or (found.facilitator if found else "")
    if not url:
        raise ConfigError(
            "no facilitator is named, which would put deposits on the chain",
            hint="give --facilitator URL: a public one, or yours by `agentkit facilitator`",
        )
    async with AsyncExitStack() as stack:
        parts = await open_parts(settings, stack)
        ground = Ground(
            settings=settings,
            config=config,
            parts=parts,
            purse=Purse(parts, budget.bind(network.currency)),
            stall=await _stall("field", settings, parts, url, stack),
            silent=await _stall("field-silent", settings, parts, url, stack),
            addresses=_addresses(settings, network, url),
        )
        outcomes = []
        for name, canary in CANARIES.items():
            outcome = await _try(name, canary, ground)
            output.note(f"  {_line(outcome)}", quiet=quiet)
            outcomes.append(outcome)
        done = Report(
            network=settings.network or EMBEDDED,
            chain_id=network.chain_id,
            contract=SETTLEMENT,
            wallet=parts.signer.address,
            seller=ground.stall.payee,
            facilitator=urlsplit(url).hostname or "",
            version=__version__,
            began=began,
            canaries=tuple(outcomes),
        )
        report.save(path, done, parts.signer)
        return done


async def _stall(
    name: str, settings: Settings, parts: Parts, facilitator: str, stack: AsyncExitStack
) -> Stall:
    """Open a stall with a key and books of its own, which a later field run finds again."""
    home = settings.home.expanduser() / name / (settings.network or EMBEDDED)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer = node_key(settings, home, test=parts.network.test)
    stall = open_stall(name, home, signer, parts.network, parts.chain, facilitator)
    return await stack.enter_async_context(stall)


async def _try(name: str, canary: Canary, ground: Ground) -> Outcome:
    """Try one canary, and return what came of it and what it cost."""
    began, paid = time.monotonic(), ground.purse.paid
    coin = await ground.parts.chain.balance(ground.parts.signer.address)
    did, why, passed, tried = "", "", False, True
    try:
        did = await canary(ground)
        passed = True
        ground.passed.add(name)
    except CannotTry as reason:
        why, tried = str(reason), False
    except (AgentKitError, OSError, TimeoutError) as error:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, AgentKitError) and error.hint:
            why = f"{why} ({error.hint})"
    coin_after = await ground.parts.chain.balance(ground.parts.signer.address)
    return Outcome(
        name=name,
        status="passed" if passed else "failed" if tried else "skipped",
        did=did,
        why=_public(why, ground.addresses),
        paid=ground.purse.paid - paid,
        gas=max(0, coin - coin_after),
        seconds=round(time.monotonic() - began, 2),
    )


def _addresses(settings: Settings, network: Network, facilitator: str) -> tuple[str, ...]:
    """Return the addresses of all services that the wallet uses."""
    memory, providers = settings.memory, settings.providers.values()
    return (
        facilitator,
        *(rpc for one in (network, *network.beside) for rpc in (one.rpc, *one.other_rpcs)),
        *(*memory.gateways, memory.turbo, memory.ipfs),
        *(address for provider in providers for address in provider.addresses),
    )


def _public(reason: str, addresses: Sequence[str]) -> str:
    """Return a reason as it may be shown to anybody: without our addresses, which may hold keys.

    Libraries show an address whole, in part, or as its host alone, in small letters.
    """
    reason = re.sub(r"[a-z]+://[^\s'\"]+", "…", reason, flags=re.IGNORECASE)
    for host in filter(None, (urlsplit(address).hostname for address in addresses)):
        reason = re.sub(re.escape(host), "…", reason, flags=re.IGNORECASE)
    return one_line(reason)[:MOST_WORDS].strip()


# -- showing -------------------------------------------------------------------------------------


def _show(found: Report, *, as_json: bool) -> None:
    """Print a report."""
    counts = {
        status: sum(outcome.status == status for outcome in found.canaries)
        for status in ("passed", "failed", "skipped")
    }
    rows: list[tuple[str, ...]] = [("canary", "", "paid", "gas", "seconds", "")]
    rows += [_row(outcome) for outcome in found.canaries]
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.began))
    text = (
        f"{found.network} (chain {found.chain_id}), {when}, agentkit {found.version}\n"
        f"signed by the wallet {found.wallet}\n\n{columns(rows, right=range(2, 5))}\n\n{told}"
    )
    output.result(found.document(), text, as_json=as_json)


def _row(outcome: Outcome) -> tuple[str, ...]:
    paid = f"{outcome.paid / 10**6:.6f} USDC" if outcome.paid else "-"
    gas = f"{outcome.gas / 10**18:.9f}" if outcome.gas else "-"
    said = outcome.did or outcome.why
    return outcome.name, outcome.status, paid, gas, f"{outcome.seconds:.1f}", said


def _line(outcome: Outcome) -> str:
    return f"{outcome.status:<8} {outcome.name}: {outcome.did or outcome.why}"
