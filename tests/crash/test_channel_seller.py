"""SIGKILL of a seller over channels at each of its steps: it goes on, and nobody is robbed."""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from support.chain_processes import Node
from support.channel_market import SELLER_KEY, StockClient, channel_shop, stock_client, told
from support.processes import PROGRAMS
from support.timing import limit
from support.x402_market import PATH, PRICE, World, chain_of, facilitator, payer_of, world_on
from x402.http.clients.httpx import PaymentError

from agentkit.errors import RunPaused
from agentkit.keys.signer import KeySigner
from agentkit.payments.closing import close_all

SELLER = PROGRAMS / "x402_channel_seller.py"
OWNED = 100 * PRICE
CHARGE = 600
BUYS = 3
WHERE = ["asked", "deposited", "worked", "charged", "ordered", "refunded"]


@dataclass
class Stall:
    """A seller that is started again whenever it dies."""

    folder: Path
    url: str
    deaths: int = 0
    running: asyncio.Task[None] | None = None

    @property
    def works(self) -> int:
        return len((self.folder / "works").read_text().splitlines())

    async def stop(self) -> None:
        if self.running:
            self.running.cancel()
            with suppress(asyncio.CancelledError):
                await self.running
            self.running = None

    async def run(self, *arguments: str, ready: asyncio.Event) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(SELLER),
                *arguments,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            try:
                assert process.stdout
                assert await process.stdout.readline() == b"sells\n"
                ready.set()
                assert await process.wait() == -9
                self.deaths += 1
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@asynccontextmanager
async def stall_on(node: Node, folder: Path, where: str) -> AsyncIterator[tuple[World, Stall, str]]:
    async with world_on(node) as world, facilitator(world, folder) as settles:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        network = world.network
        stall = Stall(folder, f"http://127.0.0.1:{port}")
        ready = asyncio.Event()
        arguments = (str(folder), settles, network.rpc, network.token, str(port), where)
        stall.running = asyncio.create_task(stall.run(*arguments, ready=ready))
        try:
            await asyncio.wait_for(ready.wait(), limit(30))
            yield world, stall, settles
        finally:
            await stall.stop()


async def earned(world: World, folder: Path, settles: str) -> int:
    """Return what the seller gets in all, once a further process has claimed what is left."""
    async with channel_shop(world, folder, settles, key=SELLER_KEY) as shop:
        await shop.claiming.claim_all()
    return await world.balance(KeySigner(SELLER_KEY).address)


@pytest.mark.parametrize("where", WHERE)
async def test_our_payer_goes_on_with_a_seller_that_was_killed(
    node: Node, tmp_path: Path, where: str
) -> None:
    key = secrets.token_bytes(32)
    owner = KeySigner(key).address
    async with stall_on(node, tmp_path, where) as (world, stall, settles):
        before = await world.balance(KeySigner(SELLER_KEY).address)
        await world.mint(owner, OWNED)
        async with payer_of(world.network, tmp_path, stall.url, key, lanes=True) as wallet:
            for number in range(BUYS):
                try:
                    result = await wallet.run(prompt=f"number {number}")
                except RunPaused as paused:
                    result = await wallet.resume(paused.run_id)
                assert [x.standing for x in result.receipts] == ["paid"]
            assert await wallet.spent() == BUYS * CHARGE
            rails, providers = {wallet.rail.name: wallet.rail}, {"x402": wallet.provider}
            async with asyncio.timeout(limit(60)):
                while set((await close_all(rails, providers, idle=0.0)).values()) - {"closed"}:
                    await asyncio.sleep(0.2)
        assert stall.deaths == 1, "the step was reached"
        assert stall.works == BUYS + (where == "worked"), "one that was not charged is done again"
        assert await world.balance(owner) == OWNED - BUYS * CHARGE
        await stall.stop()
        assert await earned(world, tmp_path, settles) - before == BUYS * CHARGE


@pytest.mark.parametrize("where", WHERE)
async def test_a_stock_client_goes_on_with_a_seller_that_was_killed(
    node: Node, tmp_path: Path, where: str
) -> None:
    key = secrets.token_bytes(32)
    owner = KeySigner(key).address
    async with (
        stall_on(node, tmp_path, where) as (world, stall, settles),
        stock_client(world, key, multiplier=10) as client,
    ):
        before = await world.balance(KeySigner(SELLER_KEY).address)
        await world.mint(owner, OWNED)
        url, charged = stall.url + PATH, 0
        for number in range(BUYS):
            async with asyncio.timeout(limit(60)):
                while (answer := await bought(client, url, number)) is None:
                    await asyncio.sleep(0.2)
            charged += int(told(answer)["extra"]["chargedAmount"])
        async with asyncio.timeout(limit(60)):
            while not await given_back(client, url, world, OWNED - BUYS * CHARGE):
                await asyncio.sleep(0.2)
        assert stall.deaths == 1, "the step was reached"
        assert charged == BUYS * CHARGE
        assert stall.works == BUYS + (where == "worked")
        await stall.stop()
        assert await earned(world, tmp_path, settles) - before == BUYS * CHARGE


async def bought(client: StockClient, url: str, number: int) -> httpx.Response | None:
    """Buy one answer; None where the seller was not there, or not ready."""
    with suppress(httpx.HTTPError, PaymentError):
        answer = await client.buy(url, {"ask": number})
        if answer.status_code == 200:
            return answer
    return None


async def given_back(client: StockClient, url: str, world: World, owned: int) -> bool:
    """Ask for the rest, and return whether the wallet has all that it is due."""
    # The SDK raises plain exceptions, also where the seller has given the rest back already.
    with suppress(Exception):
        await asyncio.to_thread(client.scheme.refund, url)
    return await world.balance(client.address) == owned
