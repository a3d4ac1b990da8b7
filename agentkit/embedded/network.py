"""The embedded network's process: chain, Arweave gateway and nodes, each on a port of its own.

It runs in a session of its own, outlives the agents that use it, keeps its state in its folder,
and ends itself after ten idle minutes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from agentkit.embedded import discovery
from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import deploy, endow
from agentkit.embedded.chain.rpc import RpcFront, rpc_app
from agentkit.embedded.gateway import Gateway, gateway_app
from agentkit.embedded.stand_ins import gaia, hyperbolic
from agentkit.embedded.stand_ins.core import Behind
from agentkit.errors import MissingExtra, StoreUnavailable
from agentkit.journal.journal import Journal
from agentkit.keys import keystore
from agentkit.keys.signer import KeySigner
from agentkit.market.chain import Network
from agentkit.money import Asset
from agentkit.net.bodies import bounded_bodies
from agentkit.net.guard import guard, require_token
from agentkit.net.server import start_server
from agentkit.payments.chain import Web3Chain
from agentkit.payments.facilitator.app import facilitator_app
from agentkit.payments.facilitator.service import FacilitatorService
from agentkit.pool.pool import Pool
from agentkit.serve.app import node_app
from agentkit.serve.node import Node, NodeSettings

CHAIN_ID = 1337
IDLE_SECONDS = 600.0
BLOCK_SECONDS = 1.0
"""Of the embedded weave, so that what is posted is stable after 18 of them: real ones take 120."""
ETHER = 10**18
AGENT_ETHER, NODE_ETHER = 10 * ETHER, 1 * ETHER
AGENT_UNITS = 100 * 10**6

FACILITATOR_PORT = 7
"""The facilitator's port after the control's: behind those of chain, gateway, nodes, stand-ins."""

NODES = (
    {"name": "fast", "percent": 100, "threads": 2, "nice": 0},
    {"name": "thrifty", "percent": 60, "threads": 1, "nice": 10},
)
"""Two native nodes: the thrifty one is cheaper and yields to everything else on the machine."""

GAIA_PRICES = {"input": "0.05 USDC per 1M tokens", "output": "2.00 USDC per 1M tokens"}
"""What the user of a Gaia node would configure; Gaia publishes no price."""


@dataclass
class Activity:
    """When the network was last used, and how many requests it is at."""

    last: float
    working: int = 0

    @web.middleware
    async def watch(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Note every request but the looks at whether we are up, and what the guard refuses."""
        answer: web.StreamResponse
        if request.path == "/health":
            answer = await handler(request)
            return answer
        self.working += 1
        try:
            answer = await handler(request)
        finally:
            self.working -= 1
            self.last = time.monotonic()
        return answer

    def idle_for(self) -> float:
        """Return the seconds since anything was asked, 0 while something is under way."""
        return 0.0 if self.working else time.monotonic() - self.last


class EmbeddedNetwork:
    """All parts of the network, opened in order and closed in reverse.

    `port` is the control's; chain, gateway, nodes, stand-ins and facilitator have the ports after
    it, in that order.  With 0 the kernel picks them all.
    """

    def __init__(self, folder: Path, *, idle: float = IDLE_SECONDS, port: int = 0) -> None:
        self._folder = folder
        self._idle = idle
        self._port = port
        self._served = 0
        self._stack = AsyncExitStack()
        self._activity = Activity(time.monotonic())
        self._nodes: dict[str, Node] = {}
        self._credit: hyperbolic.Credit | None = None
        self._token = secrets.token_hex(16)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Open everything, say so in the network's file, serve until stopped or idle."""
        began = time.monotonic()
        async with self._stack:
            self._lock()
            discovery.check_version(self._folder)
            (self._folder / discovery.VERSION_FILE).write_text(f"{discovery.VERSION}\n")
            known = await self._open(began)
            discovery.write(self._folder, known)
            self._stack.callback((self._folder / discovery.FILE).unlink, missing_ok=True)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
            await self._until_stopped()

    def _lock(self) -> None:
        """Take the folder for this process; the kernel gives it back when the process ends."""
        lock = self._stack.enter_context((self._folder / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as taken:
            raise StoreUnavailable(f"another network runs in {self._folder}") from taken

    async def _until_stopped(self) -> None:
        while not self._stopping.is_set() and self._activity.idle_for() < self._idle:
            try:
                await asyncio.wait_for(self._stopping.wait(), min(1.0, self._idle / 4))
            except TimeoutError:
                continue

    # -- parts -----------------------------------------------------------------------------------

    async def _open(self, began: float) -> discovery.NetworkFile:
        """Open chain, gateway, nodes and stand-ins, each on a port, and describe where they are."""
        keys = {
            name: self._key(name) for name in ("deployer", "agent", "hyperbolic", "facilitator")
        }
        keys |= {str(node["name"]): self._key(str(node["name"])) for node in NODES}
        network = await self._open_chain(keys)
        gateway = await self._serve(self._gateway())
        facilitator = await self._open_facilitator(keys["facilitator"][0], network)
        nodes = {}
        for settings in NODES:
            name = str(settings["name"])
            about = {**settings, "facilitator": facilitator}
            nodes[name] = await self._open_node(about, keys[name][0], network)
        providers = {
            "native": {"urls": list(nodes.values())},
            "gaia": await self._open_gaia(),
            "hyperbolic": await self._open_hyperbolic(network, keys["hyperbolic"][0].address),
        }
        return discovery.NetworkFile(
            pid=os.getpid(),
            url=await self._serve_at(self._control(), self._port),
            token=self._token,
            network=network.model_dump(mode="json"),
            gateway=gateway,
            agent_key=str(keys["agent"][1]),
            providers=providers,
            nodes=nodes,
            started_s=round(time.monotonic() - began, 3),
            facilitator=facilitator,
        )

    def _key(self, name: str) -> tuple[KeySigner, Path]:
        """Return one of the network's own throwaway keys, made the first time."""
        path = self._folder / "keys" / f"{name}.json"
        signer = (
            keystore.unlock(path, real=False) if path.exists() else keystore.create_test_key(path)
        )
        return signer, path

    async def _open_chain(self, keys: dict[str, tuple[KeySigner, Path]]) -> Network:
        """Open the chain with its contracts and test money; returns the network's description."""
        rich = {signer.address: NODE_ETHER for signer, _ in keys.values()}
        rich[keys["agent"][0].address] = AGENT_ETHER
        secret = bytes.fromhex(keystore.test_secret(keys["deployer"][1]))
        mint = {keys["agent"][0].address: AGENT_UNITS}
        chain = Chain.open(self._folder / "chain.db", rich=rich)
        self._stack.callback(chain.close)
        deployed = deploy(chain, secret, mint)
        # A chain that an earlier version began knows no facilitator.
        endow(chain, secret, keys["facilitator"][0].address, NODE_ETHER // 2)
        rpc = await self._serve(rpc_app(RpcFront(chain), token=self._token))
        network = f"eip155:{CHAIN_ID}"
        return Network(
            name="embedded",
            chain_id=CHAIN_ID,
            rpc=rpc,
            currency=Asset.named("USDC").bind(network, f"erc20:{deployed.token}"),
            coin=Asset.named("ETH").bind(network, "slip44:60"),
            token=deployed.token,
            token_name="USD Coin",  # noqa: S106  # the name of a currency
            token_version="1",  # noqa: S106
            channels=deployed.channels,
            escrow=deployed.escrow,
            anchor=deployed.anchor,
            test=True,
        )

    def _gateway(self) -> web.Application:
        gateway = Gateway.open(self._folder / "arweave", block_seconds=BLOCK_SECONDS)
        self._stack.callback(gateway.close)
        return gateway_app(gateway, token=self._token)

    async def _open_facilitator(self, signer: KeySigner, network: Network) -> str:
        """Open the x402 facilitator; returns its address, "" where its SDK is not installed."""
        journal = await Journal.open(self._folder / "facilitator", signer.address)
        self._stack.push_async_callback(journal.close)
        chain = Web3Chain(network)
        self._stack.push_async_callback(chain.close)
        try:
            service = FacilitatorService(journal, chain, signer, network)
        except MissingExtra:
            return ""
        port = self._port and self._port + FACILITATOR_PORT
        return await self._serve_at(facilitator_app(service), port)

    async def _open_node(self, about: dict[str, Any], signer: KeySigner, network: Network) -> str:
        """Open one native node behind HTTP; returns its address."""
        settings = NodeSettings(
            **about,
            home=self._folder / "nodes" / about["name"],
            label="native node of the embedded network, on this machine",
        )
        node = await Node.open(settings, signer, Web3Chain(network), network)
        self._stack.push_async_callback(node.close)
        self._nodes[settings.name] = node
        return await self._serve(node_app(node, token=self._token))

    async def _open_gaia(self) -> dict[str, Any]:
        """Open the stand-in for a Gaia node; returns the provider's settings."""
        key = secrets.token_hex(8)
        url = await self._serve(gaia.gaia_app(self._behind("gaia"), key))
        return {
            "url": f"{url}/v1",
            "api_key": key,
            "price": GAIA_PRICES,
            "models": {"smollm2-135m": gaia.SERVED_MODEL},
            "label": gaia.LABEL,
        }

    async def _open_hyperbolic(self, network: Network, payee: str) -> dict[str, Any]:
        """Open the stand-in for Hyperbolic with its books; returns the provider's settings."""
        key = secrets.token_hex(8)
        credit = hyperbolic.Credit(self._folder / "hyperbolic.db")
        self._stack.callback(credit.close)
        self._credit = credit
        app = hyperbolic.hyperbolic_app(
            self._behind("hyperbolic"), credit, network, key=key, payee=payee
        )
        url = await self._serve(app)
        return {
            "url": f"{url}/v1",
            "api_key": key,
            "price": hyperbolic.PRICES,
            "models": {"smollm2-135m": hyperbolic.SERVED_MODEL},
            "payee": payee,
            "label": hyperbolic.LABEL,
        }

    def _behind(self, name: str) -> Behind:
        pool = Pool(scratch=self._folder / "fronts" / name, llama_slots=1, worker_slots=1)
        self._stack.push_async_callback(pool.close)
        behind = Behind(pool)
        self._stack.push_async_callback(behind.close)
        return behind

    # -- serving ---------------------------------------------------------------------------------

    async def _serve(self, app: web.Application) -> str:
        """Serve an application on the next loopback port and return its address."""
        self._served += 1
        return await self._serve_at(app, self._port and self._port + self._served)

    async def _serve_at(self, app: web.Application, port: int) -> str:
        """Serve an application on a port (0: any that is free); returns its address."""
        app.middlewares.insert(1, self._activity.watch)  # within the guard, which is the first
        try:
            runner = await start_server(app, "127.0.0.1", port, shutdown_timeout=2.0)
        except OSError as taken:
            raise StoreUnavailable(
                f"port {port} of this machine cannot be had: {taken.strerror}",
                hint="choose another --port; the eight from it on are used",
            ) from taken
        self._stack.push_async_callback(runner.cleanup)
        address = runner.addresses[0]
        return f"http://127.0.0.1:{address[1]}"

    def _control(self) -> web.Application:
        app = web.Application(middlewares=[guard(), bounded_bodies(1024), self._check_token])
        app.add_routes([web.get("/health", self._health), web.post("/stop", self._stop)])
        app.add_routes([web.get("/executions", self._executions)])
        app.add_routes([web.get("/vouchers", self._vouchers), web.get("/credit", self._books)])
        return app

    @web.middleware
    async def _check_token(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path != "/health":
            require_token(request, self._token)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"ok": True, "pid": os.getpid()})

    async def _stop(self, request: web.Request) -> web.Response:
        self._stopping.set()
        return web.json_response({"stopping": True})

    async def _executions(self, request: web.Request) -> web.Response:
        """Return every node's execution log."""
        logs = {name: await node.jobs.executions() for name, node in self._nodes.items()}
        return web.json_response(logs)

    async def _books(self, request: web.Request) -> web.Response:
        """Return the books of the stand-in for Hyperbolic, which it shows to none of its users."""
        assert self._credit is not None  # the control is served last
        return web.json_response(self._credit.books())

    async def _vouchers(self, request: web.Request) -> web.Response:
        """Return every node's voucher book."""
        books = {name: await node.book.books() for name, node in self._nodes.items()}
        shown = {"channel", "payer", "cumulative", "tasks", "settled"}
        return web.json_response(
            {n: [row.model_dump(include=shown) for row in rows] for n, rows in books.items()}
        )


async def serve(folder: Path, *, idle: float = IDLE_SECONDS, port: int = 0) -> None:
    """Run the embedded network in this process until it is stopped."""
    await EmbeddedNetwork(folder, idle=idle, port=port).run()


def main() -> None:
    """Run as `python -m agentkit.embedded FOLDER [IDLE_SECONDS]`."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    idle = float(sys.argv[2]) if len(sys.argv) > 2 else IDLE_SECONDS
    asyncio.run(serve(folder, idle=idle))
