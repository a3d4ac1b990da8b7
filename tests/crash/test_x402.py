"""SIGKILL of a payer around its payment: afterwards the same payment is presented, paid once."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from support.chain_processes import Node
from support.processes import PROGRAMS
from support.x402_market import PRICE, Shop, World, chain_of, facilitator, shop, world_on

from agentkit.keys.signer import KeySigner
from agentkit.market.x402 import SIGNATURE, Presented

BUYER = PROGRAMS / "x402_buyer.py"
OWNED = 10 * PRICE


@dataclass
class Street:
    """A shop, and the wallet whose processes die in front of it."""

    store: Shop
    folder: Path
    key: bytes

    async def buyer(self, *, hold: bool = False) -> asyncio.subprocess.Process:
        """Start a process of the wallet; it waits for its key."""
        world = self.store.world
        return await asyncio.create_subprocess_exec(
            sys.executable,
            str(BUYER),
            *(str(self.folder), self.store.url, world.network.rpc, world.network.token),
            "hold" if hold else "go",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def lets_go(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        process.stdin.write(self.key.hex().encode() + b"\n")

    async def finishes(self, process: asyncio.subprocess.Process) -> None:
        said, _ = await process.communicate(self.key.hex().encode() + b"\n")
        assert said == b"done\n"


async def kill(process: asyncio.subprocess.Process) -> None:
    process.kill()
    assert await process.wait() == -9


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@asynccontextmanager
async def street_on(node: Node, folder: Path) -> AsyncIterator[tuple[World, Street]]:
    key = secrets.token_bytes(32)
    async with (
        world_on(node) as world,
        facilitator(world, folder) as url,
        shop(world, folder, url) as store,
    ):
        await world.mint(KeySigner(key).address, OWNED)
        yield world, Street(store, folder, key)


@pytest.mark.parametrize("where", ["signed", "asked", "answered"])
async def test_a_killed_payer_presents_the_same_payment(
    node: Node, tmp_path: Path, where: str
) -> None:
    presented: list[str] = []
    kills: list[asyncio.subprocess.Process] = []
    async with street_on(node, tmp_path) as (world, street):
        started: asyncio.Future[asyncio.subprocess.Process] = asyncio.Future()

        async def deadly(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            """Kill who asks, before the payment is looked at or after it was answered."""
            if SIGNATURE not in request.headers:
                return await handler(request)
            presented.append(request.headers[SIGNATURE])
            dying = len(presented) == 1 and where != "signed"
            if dying and where == "asked":
                kills.append(await started)
                await kill(kills[0])
            response = await handler(request)
            if dying and where == "answered":
                kills.append(await started)
                await kill(kills[0])
            return response

        street.store.counter.around = deadly
        process, later = await street.buyer(hold=where == "signed"), await street.buyer()
        street.lets_go(process)
        started.set_result(process)
        assert process.stdout
        if where == "signed":
            assert await process.stdout.readline() == b"signed\n"
            kills.append(process)
            await kill(process)
            assert not presented
        else:
            assert await process.stdout.read() == b""
        assert len(kills) == 1
        await street.finishes(later)
        payments = {Presented.read(header).payload.model_dump_json() for header in presented}
        assert len(payments) == 1
        assert len(presented) == (1 if where == "signed" else 2)
        assert street.store.counter.works == 1
        assert await world.earned() == PRICE
        assert await world.balance(KeySigner(street.key).address) == OWNED - PRICE
