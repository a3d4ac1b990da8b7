"""serve, facilitator: the other side of the market."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from agentkit.cli import output
from agentkit.config import Settings
from agentkit.display.progress import show_progress
from agentkit.embedded.discovery import NetworkFile
from agentkit.errors import ConfigError
from agentkit.keys import keystore
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient
from agentkit.money import Money
from agentkit.pool import models
from agentkit.pool.extras import installed
from agentkit.wiring import network_of


@output.verb
def serve(
    name: Annotated[str, typer.Option(help="what the node is called")] = "node",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="port on loopback")] = 8700,
    slots: Annotated[int, typer.Option(min=1, max=64, help="tasks at once for each model")] = 1,
    threads: Annotated[int, typer.Option(min=1, max=256, help="threads for each slot")] = 1,
    percent: Annotated[int, typer.Option(min=1, help="the default price list, scaled")] = 100,
    facilitator: Annotated[
        str, typer.Option(metavar="URL", help="the x402 facilitator that settles and pays the gas")
    ] = "",
    request_price: Annotated[
        str, typer.Option(help="a chat's price for clients that pay it in advance")
    ] = "0.001 USDC",
    host_name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a name a proxy publishes it under")
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="show what the node has earned, and serve nothing")
    ] = False,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Be a provider: the native pool behind a paid, OpenAI-compatible HTTP endpoint."""
    from agentkit.serve.node import NodeSettings

    if not _NODE_NAME.fullmatch(name):
        raise ConfigError(
            f"a node cannot be called {name[:64]!r}",
            hint="give --name letters, digits, dots, dashes and underscores",
        )
    settings = Settings.read(config)
    home = settings.home.expanduser() / "node" / name
    if status:
        asyncio.run(_show_earnings(settings, home, as_json=as_json))
        return
    about = NodeSettings(
        name,
        home,
        percent=percent,
        slots=slots,
        threads=threads,
        facilitator=facilitator,
        request_price=request_price,
    )
    asyncio.run(_serve(settings, about, port, host_name or (), quiet=quiet))


_NODE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
"""Its state lies in a folder of that name."""


async def _serve(
    settings: Settings, about: Any, port: int, host_names: Collection[str], *, quiet: bool
) -> None:
    """Serve a node until Ctrl-C or SIGTERM; `about` are its NodeSettings."""
    from agentkit.net.server import start_server
    from agentkit.payments.chain import Web3Chain
    from agentkit.serve.app import node_app
    from agentkit.serve.node import Node

    network, found = await network_of(settings)
    if installed("xllamacpp"):  # a buyer must not wait, or give up, while a model is fetched
        progress = show_progress("fetching", sys.stderr)
        await asyncio.to_thread(models.fetch_named, models.CATALOGUE, progress)
    signer = _node_key(settings, about.home, test=network.test)
    if not about.facilitator:
        about = replace(about, facilitator=_usual_facilitator(settings, found))
    chain = Web3Chain(network)
    await _check_can_claim(chain, signer, about.facilitator)
    node = await Node.open(about, signer, chain, network)
    runner = await start_server(node_app(node, host_names=host_names), "127.0.0.1", port)
    stopping = _stopping()
    output.note(f"{about.name} serves http://127.0.0.1:{port} for {signer.address}", quiet=quiet)
    await stopping.wait()
    await runner.cleanup()
    await node.close()


def _usual_facilitator(settings: Settings, found: NetworkFile | None) -> str:
    """Return who settles on the network that is set, as the settings say; "" where nobody does."""
    if found:
        return found.facilitator
    own = settings.networks.get(settings.network or "")
    return own.facilitator if own else ""


async def _check_can_claim(chain: ChainClient, signer: Signer, facilitator: str) -> None:
    """Raise ConfigError for a seller that could claim nothing of what it earns."""
    if facilitator or await chain.balance(signer.address):
        return
    await chain.close()
    raise ConfigError(
        f"this node could claim nothing: its wallet {signer.address} has no gas, and no facilitator"
        " pays for it",
        hint="name one with --facilitator URL, or send gas money to that address",
    )


async def _show_earnings(settings: Settings, home: Path, *, as_json: bool) -> None:
    """Show what a node has earned over channels, from its books; raises ConfigError without any."""
    from agentkit.journal import records as r
    from agentkit.journal.journal import Journal
    from agentkit.journal.state_file import read_meta
    from agentkit.payments.channels.claiming import Earnings

    meta = read_meta(home / "state.db")
    if meta is None:
        raise ConfigError(
            f"there are no books of a node in {home}",
            hint="give the --name under which it was served, and the same settings",
        )
    network, _ = await network_of(settings)
    journal = await Journal.open(home, meta["wallet"])
    try:
        channels = await journal.commit(lambda tx: tx.every(r.SoldChannel))
    finally:
        await journal.close()
    earned = Earnings.of(channels)

    def amount(units: int) -> str:
        return str(Money(units, network.currency))

    data = {
        "channels": len(channels),
        "charged": amount(earned.charged),
        "claimed": amount(earned.claimed),
        "at_risk": amount(earned.at_risk),
        "until": earned.until,
    }
    lines = [
        f"channels   {len(channels)}",
        f"charged    {data['charged']}",
        f"claimed    {data['claimed']}",
        f"at risk    {data['at_risk']}",
    ]
    if earned.until:
        lines.append(f"           can be taken back from {_when(earned.until)} on: keep it serving")
    output.result(data, "\n".join(lines), as_json=as_json)


def _when(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _stopping() -> asyncio.Event:
    """Return what is set by Ctrl-C or SIGTERM; from here on they do not end the process."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    return ended


@output.verb
def facilitator(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="port on loopback")] = 8710,
    least: Annotated[
        str, typer.Option(help="deposits and claims that move less are refused, for their gas")
    ] = "0.01 USDC",
    per_minute: Annotated[
        int, typer.Option(min=1, help="requests of one caller elsewhere, in a minute")
    ] = 600,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Settle x402 payments of others on the chain, and pay their gas.

    Its wallet lies in the folder `facilitator` of the home and needs gas money alone;
    allowance.gas limits what it spends.
    """
    settings = Settings.read(config)
    amount = Money.parse(least)
    asyncio.run(_facilitate(settings, port, amount, per_minute=per_minute, quiet=quiet))


async def _facilitate(
    settings: Settings, port: int, least: Money, *, per_minute: int, quiet: bool
) -> None:
    """Serve a facilitator until Ctrl-C or SIGTERM."""
    from agentkit.journal.journal import Journal
    from agentkit.net.server import start_server
    from agentkit.payments.chain import Web3Chain
    from agentkit.payments.facilitator.app import facilitator_app
    from agentkit.payments.facilitator.service import FacilitatorService

    network, _ = await network_of(settings)
    home = settings.home.expanduser() / "facilitator"
    signer = _node_key(settings, home, test=network.test)
    async with AsyncExitStack() as stack:
        journal = await Journal.open(home, signer.address)
        stack.push_async_callback(journal.close)
        chain = Web3Chain(network)
        stack.push_async_callback(chain.close)
        gas = settings.allowance.gas
        service = FacilitatorService(journal, chain, signer, network, gas_limit=gas, least=least)
        await service.recover()
        app = facilitator_app(service, per_minute=per_minute)
        runner = await start_server(app, "127.0.0.1", port)
        stack.push_async_callback(runner.cleanup)
        stopping = _stopping()
        told = f"the facilitator serves http://127.0.0.1:{port} and pays gas from {signer.address}"
        output.note(told, quiet=quiet)
        if not await chain.balance(signer.address):
            output.note("it has no gas money yet: send some to that address", quiet=quiet)
        await stopping.wait()


def _node_key(settings: Settings, home: Path, *, test: bool) -> Signer:
    """Return the key of a node's own wallet, never the agent's; made the first time."""
    if test:
        path = home / "key.json"
        return (
            keystore.unlock(path, real=False) if path.exists() else keystore.create_test_key(path)
        )
    path, passphrase = home / "wallet.json", settings.secret()
    if path.exists():
        return keystore.unlock(path, passphrase, real=True)
    return keystore.create(path, passphrase)
