"""SIGKILL of a payer around its payment: afterwards the same payment is presented, paid once."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from support.chain_processes import Node
from support.channel_market import channel_shop
from support.processes import PROGRAMS
from support.x402_market import (
    PATH,
    PRICE,
    Shop,
    World,
    answer,
    chain_of,
    facilitator,
    shop,
    world_on,
)

from agentkit.keys.signer import KeySigner
from agentkit.market.batch_settlement import ChannelPayment
from agentkit.market.x402 import SIGNATURE, Presented

BUYER = PROGRAMS / "x402_buyer.py"
OWNED = 10 * PRICE


@dataclass
class Street:
    """A shop, and the wallet whose processes die in front of it."""

    world: World
    url: str
    folder: Path
    key: bytes
    rail: str = "exact"

    async def buyer(self, *, hold: bool = False) -> asyncio.subprocess.Process:
        """Start a process of the wallet; it waits for its key."""
        world = self.world
        return await asyncio.create_subprocess_exec(
            sys.executable,
            str(BUYER),
            *(str(self.folder), self.url, world.network.rpc, world.network.token),
            *("hold" if hold else "go", self.rail),
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
async def street_on(node: Node, folder: Path) -> AsyncIterator[tuple[Shop, Street]]:
    key = secrets.token_bytes(32)
    async with (
        world_on(node) as world,
        facilitator(world, folder) as url,
        shop(world, folder, url) as store,
    ):
        await world.mint(KeySigner(key).address, OWNED)
        yield store, Street(world, store.url, folder, key)


@dataclass
class Deadly:
    """A shop's door that kills who asks: before the payment is looked at, or after the answer."""

    where: str
    presented: list[str] = field(default_factory=list)
    kills: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def meets(self, street: Street) -> None:
        """Have a process of the wallet die, and the next one finish what it began."""
        self.started: asyncio.Future[asyncio.subprocess.Process] = asyncio.Future()
        process, later = await street.buyer(hold=self.where == "signed"), await street.buyer()
        street.lets_go(process)
        self.started.set_result(process)
        assert process.stdout
        if self.where == "signed":
            assert await process.stdout.readline() == b"signed\n"
            self.kills.append(process)
            await kill(process)
            assert not self.presented
        else:
            assert await process.stdout.read() == b""
        assert len(self.kills) == 1
        await street.finishes(later)
        assert len(self.presented) == (1 if self.where == "signed" else 2)

    async def door(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if SIGNATURE not in request.headers:
            return await handler(request)
        self.presented.append(request.headers[SIGNATURE])
        dying = len(self.presented) == 1 and self.where != "signed"
        if dying and self.where == "asked":
            self.kills.append(await self.started)
            await kill(self.kills[0])
        response = await handler(request)
        if dying and self.where == "answered":
            self.kills.append(await self.started)
            await kill(self.kills[0])
        return response


WHERE = pytest.mark.parametrize("where", ["signed", "asked", "answered"])


@WHERE
async def test_a_killed_payer_presents_the_same_payment(
    node: Node, tmp_path: Path, where: str
) -> None:
    async with street_on(node, tmp_path) as (store, street):
        deadly = Deadly(where)
        store.counter.around = deadly.door
        await deadly.meets(street)
        payments = {Presented.read(header).payload.model_dump_json() for header in deadly.presented}
        assert len(payments) == 1
        assert store.counter.works == 1
        assert await street.world.earned() == PRICE
        assert await street.world.balance(KeySigner(street.key).address) == OWNED - PRICE


@WHERE
async def test_a_killed_payer_sends_the_same_voucher(
    node: Node, tmp_path: Path, where: str
) -> None:
    """Over a channel: what was charged and lost with the process is given again."""
    key = secrets.token_bytes(32)
    async with (
        world_on(node) as world,
        facilitator(world, tmp_path) as url,
        channel_shop(world, tmp_path, url, key=secrets.token_bytes(32), path=PATH) as store,
    ):
        await world.mint(KeySigner(key).address, OWNED)
        street = Street(world, store.url.removesuffix(PATH), tmp_path, key, rail="lanes")
        deadly = Deadly(where)
        store.work.around = deadly.door
        store.work.chat = lambda number: answer(f"answer {number}")
        await deadly.meets(street)
        vouchers = {
            ChannelPayment.read(header).payload.voucher.model_dump_json()
            for header in deadly.presented
        }
        assert len(vouchers) == 1
        assert store.work.done == 1
        await store.claiming.claim_all()
        assert await world.balance(store.signer.address) == PRICE
