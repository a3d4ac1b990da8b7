"""wallet show | close | recover | fund | export | signer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from agentkit.agent import Agent
from agentkit.cli import output
from agentkit.config import Settings
from agentkit.display.text import columns
from agentkit.errors import ConfigError
from agentkit.keys import keystore, signer_server
from agentkit.keys.signer import KeySigner
from agentkit.market.batch_settlement import ERC3009_COLLECTOR
from agentkit.payments.channels.recovery import Recovered
from agentkit.payments.networks import home_network
from agentkit.wallet_view import Balances

wallet = typer.Typer(no_args_is_help=True, help="The wallet's money.")


WITHDRAWAL = (
    "paying costs no gas; only taking money back from a provider that is silent does: two"
    " transactions, about 100,000 gas"
)


@wallet.command()
@output.verb
def show(
    as_json: output.AsJson = False, config: output.Config = None, quiet: output.Quiet = False
) -> None:
    """Show balances, money in channels and credit, and what is set aside."""

    async def go() -> Balances:
        async with Agent.from_config(config) as agent:
            return await agent.balances()

    found = asyncio.run(go())
    rows = [
        ("address", found.address),
        ("network", found.network),
        ("balance", str(found.currency)),
        ("for gas", str(found.coin)),
        *((f"on {holding.network}", str(holding)) for holding in found.beside),
        *((f"in {label}", str(amount)) for label, amount in found.placed.items()),
        ("held for runs", str(found.held)),
        ("spent ever", str(found.spent)),
    ]
    output.result(dict(rows), columns(rows), as_json=as_json)
    if found.placed:
        output.note(WITHDRAWAL, quiet=quiet)


@wallet.command()
@output.verb
def close(
    as_json: output.AsJson = False, config: output.Config = None, quiet: output.Quiet = False
) -> None:
    """Close every channel: providers claim what is promised, the rest comes back."""

    async def go() -> dict[str, str]:
        async with Agent.from_config(config) as agent:
            return await agent.close_channels()

    outcomes = asyncio.run(go())
    text = columns(list(outcomes.items())) if outcomes else "no channel is open"
    output.result(outcomes, text, as_json=as_json)
    if any(outcome != "closed" for outcome in outcomes.values()):
        output.note("what is not closed stays in its channel; close it again later", quiet=quiet)
        raise typer.Exit(1)


@wallet.command()
@output.verb
def recover(
    since: Annotated[int, typer.Option(help="the first block that is searched", min=0)] = 0,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Find channels that this wallet filled and its books do not know, as after a loss of all."""

    async def go() -> Recovered:
        async with Agent.from_config(config) as agent:
            return await agent.recover_channels(since)

    found = asyncio.run(go())
    rows = {payee: str(left) for payee, left in found.left.items()}
    text = columns(list(rows.items())) if rows else "no channel was found that is not known"
    output.result({"left": rows, "unread": found.unread}, text, as_json=as_json)
    if rows:
        output.note("take it back with `agentkit wallet close`, which costs gas", quiet=quiet)
    if found.unread:
        output.note(
            f"{found.unread} deposits were made in calls that do not show their channel:"
            f" an explorer lists them, as what this wallet sent to {ERC3009_COLLECTOR}",
            quiet=quiet,
        )


@wallet.command()
@output.verb
def fund(
    as_json: output.AsJson = False, config: output.Config = None, quiet: output.Quiet = False
) -> None:
    """Say what to send where, so that this wallet can pay; asks no chain.

    The address is the key's own, so the keystore is opened: its file could name any other.
    """
    settings = Settings.read(config)
    if settings.network is None:
        text = "the embedded network's wallet has test money already; `agentkit wallet show`"
        output.result({"network": "embedded"}, text, as_json=as_json)
        return
    network = home_network(settings, settings.network)
    address = _signer(settings).address
    rows = [
        ("to", address),
        ("on", f"{network.name} (chain {network.chain_id})"),
        ("what you pay with", f"USDC, the token {network.token}"),
        ("for gas", f"a little {network.coin.symbol} on the same network, within allowance.gas"),
        *(
            (f"or on {other.name} (chain {other.chain_id})", f"USDC, the token {other.token}")
            for other in network.beside
        ),
    ]
    warning = "Send nothing else, and nothing on another network: it would be lost to this wallet."
    output.result(dict(rows), f"{columns(rows)}\n\n{warning}", as_json=as_json)


@wallet.command()
@output.verb
def export(
    out: Annotated[Path, typer.Argument(help="where to write the encrypted keystore")],
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Copy the encrypted keystore (V3, as other wallets read it); never over another file."""
    settings = Settings.read(config)
    path = settings.wallet.keystore.expanduser()
    if settings.network is None:
        raise ConfigError(
            "no network is set, so a throwaway key of the embedded network pays, which has no"
            " encrypted keystore",
            hint=f"set `network` to export the wallet {path}, or copy that file yourself",
        )
    address = keystore.copy(path, out.expanduser(), settings.secret())
    text = f"{out} written for {address}; it opens with the same passphrase, which is not in it"
    output.result({"address": address, "keystore": str(out)}, text, as_json=as_json)


@wallet.command()
@output.verb
def signer(
    path: Annotated[Path, typer.Option("--socket", help="where to listen")],
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Keep the wallet's key in this process, for agents with `wallet.signer` set to the socket."""
    settings = Settings.read(config)
    unlocked = _signer(settings)
    output.note(f"signing for {unlocked.address} at {path}", quiet=quiet)
    signer_server.serve(path.expanduser(), unlocked)


def _signer(settings: Settings) -> KeySigner:
    return keystore.unlock(settings.wallet.keystore.expanduser(), settings.secret(), real=True)
