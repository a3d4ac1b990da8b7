"""serve, facilitator: the other side of the market."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Collection, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.cli import output
from agentkit.config import ServeSettings, Settings
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

if TYPE_CHECKING:  # what a node is made of is slow to import
    from agentkit.serve.node import NodeSettings


@output.verb
def serve(
    name: Annotated[str | None, typer.Option(help="what the node is called")] = None,
    label: Annotated[str | None, typer.Option(help="a line about it for buyers")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="port on loopback")] = None,
    slots: Annotated[int | None, typer.Option(help="tasks at once for each model")] = None,
    threads: Annotated[int | None, typer.Option(help="threads for each slot")] = None,
    nice: Annotated[int | None, typer.Option(help="by how much its work gives way")] = None,
    percent: Annotated[int | None, typer.Option(help="the price list, scaled")] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE.UNIT=RATE", help="one rate of the price list"),
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="how much is delivered before it has to be paid")
    ] = None,
    offers_last: Annotated[float | None, typer.Option(help="seconds an offer is good for")] = None,
    facilitator: Annotated[
        str | None,
        typer.Option(metavar="URL", help="the x402 facilitator that settles and pays the gas"),
    ] = None,
    request_price: Annotated[
        str | None, typer.Option(help="a chat's price for clients that pay it in advance")
    ] = None,
    host_name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a name a proxy publishes it under")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="the graphics card it runs on")] = None,
    vram: Annotated[int | None, typer.Option(help="that card's memory, in GB")] = None,
    api_key_env: Annotated[
        list[str] | None,
        typer.Option(metavar="VARIABLE", help="holds a key that buys chats for nothing"),
    ] = None,
    token_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="holds the operator's token")
    ] = None,
    public_metrics: Annotated[
        bool | None, typer.Option("--public-metrics", help="let anybody read /metrics")
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="show what the node has earned, and serve nothing")
    ] = False,
    as_json: output.AsJson = False,
    config: output.Config = None,
    quiet: output.Quiet = False,
) -> None:
    """Be a provider: the native pool behind a paid, OpenAI-compatible HTTP endpoint.

    Each flag can stand in the table [serve] of agentkit.toml as well; flags win.
    """
    flags = {
        "name": name,
        "label": label,
        "port": port,
        "slots": slots,
        "threads": threads,
        "nice": nice,
        "percent": percent,
        "price": _prices(price or ()),
        "window": window,
        "offers_last": offers_last,
        "facilitator": facilitator,
        "request_price": request_price,
        "host_names": host_name,
        "gpu": gpu,
        "vram": vram,
        "api_keys": [{"env": variable} for variable in api_key_env or ()],
        "token": {"env": token_env} if token_env else None,
        "public_metrics": public_metrics,
    }
    # A list or table that is empty was not given: what the file says stays.
    given = {key: value for key, value in flags.items() if value not in (None, [], {})}
    settings = Settings.read(config, **({"serve": given} if given else {}))
    home = settings.home.expanduser() / "node" / settings.serve.name
    if status:
        from agentkit.cli.earnings import show_earnings

        asyncio.run(show_earnings(settings, home, as_json=as_json))
        return
    asyncio.run(_serve(settings, home, quiet=quiet))


def _prices(given: Collection[str]) -> dict[str, dict[str, str]]:
    """Return the rates in `--price SERVICE.UNIT=RATE`, as a settings file has them."""
    prices: dict[str, dict[str, str]] = {}
    for text in given:
        place, equals, rate = text.partition("=")
        service, dot, unit = place.partition(".")
        if not (equals and dot and service and unit):
            raise ConfigError(
                f"--price cannot be {text[:64]!r}",
                hint='write it as --price "infer.input=0.40 USDC per 1M tokens"',
            )
        prices.setdefault(service, {})[unit] = rate
    return prices


def _node_settings(serve: ServeSettings, home: Path) -> NodeSettings:
    """Return what a node is opened with; raises ConfigError for a price of nothing it sells."""
    from agentkit.serve.node import PRICES, NodeSettings

    prices = {service: dict(rates) for service, rates in PRICES.items()}
    for service, rates in serve.price.items():
        for unit, rate in rates.items():
            if unit not in prices.get(service, {}):
                known = ", ".join(f"{each}.{u}" for each in PRICES for u in PRICES[each])
                raise ConfigError(
                    f"serve.price.{service}.{unit} is the price of nothing that a node sells",
                    hint=f"these can be set: {known}",
                )
            prices[service][unit] = str(rate)
    return NodeSettings(
        name=serve.name,
        home=home,
        label=serve.label,
        percent=serve.percent,
        slots=serve.slots,
        threads=serve.threads,
        nice=serve.nice,
        offers_last=serve.offers_last,
        window=str(serve.window),
        gpu=serve.gpu,
        vram=serve.vram,
        api_keys=tuple(key.read() for key in serve.api_keys),
        facilitator=serve.facilitator,
        request_price=str(serve.request_price),
        prices=prices,
    )


async def _serve(settings: Settings, home: Path, *, quiet: bool) -> None:
    """Serve a node, whose books lie in `home`, until Ctrl-C or SIGTERM."""
    from agentkit.net.server import start_server
    from agentkit.payments.chain import Web3Chain
    from agentkit.serve.app import node_app
    from agentkit.serve.node import Node

    serve = settings.serve
    about = _node_settings(serve, home)
    token = serve.token.read() if serve.token else ""
    network, found = await network_of(settings)
    if installed("xllamacpp"):  # a buyer must not wait, or give up, while a model is fetched
        progress = show_progress("fetching", sys.stderr)
        await asyncio.to_thread(models.fetch_named, models.CATALOGUE, progress)
    signer = node_key(settings, home, test=network.test)
    if not about.facilitator:
        about = replace(about, facilitator=_usual_facilitator(settings, found))
    chain = Web3Chain(network)
    await _check_can_claim(chain, signer, about.facilitator)
    node = await Node.open(about, signer, chain, network)
    app = node_app(
        node, token=token, host_names=serve.host_names, public_metrics=serve.public_metrics
    )
    runner = await start_server(app, "127.0.0.1", serve.port)
    stopping = _stopping()
    told = f"{about.name} serves http://127.0.0.1:{serve.port} for {signer.address}"
    output.note(told, quiet=quiet)
    await stopping.wait()
    await runner.cleanup()
    output.note("claiming what it has earned; Ctrl-C again leaves that for later", quiet=quiet)
    stopping.clear()
    await _until(node.claim_all(), stopping)
    await node.close()


async def _until(work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> None:
    """Wait for work to end, or end it once a stop is asked for."""
    tasks = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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
    signer = node_key(settings, home, test=network.test)
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


def node_key(settings: Settings, home: Path, *, test: bool) -> Signer:
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
