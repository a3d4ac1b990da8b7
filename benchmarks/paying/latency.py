"""What being paid adds to a request, one in flight: p50 and p99, beside the same request for free.

    python benchmarks/paying/latency.py --json

Payer, our paywall and an instant handler over loopback in one process, by the scheme
`batch-settlement` on a channel on anvil.  Each side commits once for a request, synchronous=FULL:
the payer the voucher, with the charge of the request before; the seller voucher, charge and answer.
Free and paid requests take turns.  The unpaid request that asks for the price is not made: a payer
that has a channel knows it.  Beside them stands one durable commit of a row alone, in SQLite on the
same disk: two of these are the least that being paid can add.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.chain_processes import anvil
from support.channel_market import Work, channel_shop
from support.x402_market import PATH, PRICE, Payer, World, facilitator, payer, world_on

from agentkit.artifacts import Text
from agentkit.market.attempt import Attempt, Result
from agentkit.market.batch_settlement import ChannelPayment
from agentkit.market.offer import Offer
from agentkit.market.seams import Transaction, Wanted
from agentkit.market.x402 import REQUIRED, RESPONSE, SIGNATURE, VERSION, Challenge
from agentkit.money import Money

WARM_UP = 50
RUN = "bench"


class PaidRequests:
    """Sends requests with vouchers of a lane, one after the other."""

    def __init__(
        self, wallet: Payer, offer: Offer, required: dict[str, Any], session: aiohttp.ClientSession
    ) -> None:
        self.wallet = wallet
        self.offer = offer
        self.required = required
        self.session = session
        self.before: tuple[Attempt, Result] | None = None

    async def send(self, url: str, number: int) -> None:
        """Buy one request."""
        attempt = attempt_of(self.offer, number)
        rail, before = self.wallet.rail, self.before

        def promise(tx: Transaction) -> dict[str, Any]:
            if before is not None:
                rail.settle(tx, *before)
            return dict(rail.reserve(tx, attempt).body["payload"])

        payload = await self.wallet.journal.commit(promise)
        payment = ChannelPayment.model_validate_json(
            json.dumps({"x402Version": VERSION, "accepted": self.required, "payload": payload})
        )
        headers = {SIGNATURE: payment.header()}
        async with self.session.post(url, json={"ask": number}, headers=headers) as said:
            body = await said.read()
            assert said.status == 200, body
            assert said.headers[RESPONSE]
        self.before = attempt, Result((Text.of(body),), {"request": 1}, self.offer.price)


def attempt_of(offer: Offer, number: int) -> Attempt:
    key = secrets.token_hex(32)
    return Attempt.at(key, 0, offer, run=RUN, item=number, task=key, at_most=offer.at_most)


@asynccontextmanager
async def free_shop() -> AsyncIterator[str]:
    """The same answers for nothing."""
    work = Work()

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        return await work.handle(request)

    app = web.Application()
    app.router.add_post(PATH, handle)
    async with TestServer(app) as server:
        yield str(server.make_url(PATH))


async def filled(
    world: World, wallet: Payer, session: aiohttp.ClientSession, url: str, units: int
) -> PaidRequests:
    """Sign a deposit for all requests, which the first one brings."""
    async with session.get(url) as said:
        challenge = Challenge.read(said.headers[REQUIRED])
    (way,) = challenge.document()["accepts"]
    offer = await wallet.desk.offer(wallet.desk.node())
    hold = Money(units * max(offer.lanes, 1), world.network.currency)
    await wallet.journal.commit(lambda tx: wallet.desk.ledger.hold(tx, RUN, hold, None))
    await wallet.rail.fund(offer, hold, Wanted(attempt_of(offer, 0), lambda tx: None))
    return PaidRequests(wallet, offer, way, session)


async def compare(folder: Path, requests: int) -> tuple[list[float], list[float]]:
    """Return the sorted milliseconds of free and of paid requests."""
    units = (requests + WARM_UP) * PRICE
    free: list[float] = []
    paid: list[float] = []
    with anvil() as node:
        async with (
            world_on(node) as world,
            facilitator(world, folder) as settles,
            channel_shop(world, folder, settles, path=PATH) as shop,
            free_shop() as nothing,
            payer(world, folder, shop.url.removesuffix(PATH), units=units, lanes=True) as wallet,
            aiohttp.ClientSession() as session,
        ):
            buyer = await filled(world, wallet, session, shop.url, units)
            for number in range(WARM_UP + requests):
                free.append(await timed(asked(session, nothing, number)))
                paid.append(await timed(buyer.send(shop.url, number)))
            (channel,) = await shop.sold()
            assert channel.charged == (WARM_UP + requests) * PRICE, "each was charged once"
    return sorted(free[WARM_UP:]), sorted(paid[WARM_UP:])


async def asked(session: aiohttp.ClientSession, url: str, number: int) -> None:
    async with session.post(url, json={"ask": number}) as said:
        await said.read()
        assert said.status == 200


async def timed(work: Awaitable[None]) -> float:
    """Return how many milliseconds something takes."""
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000


def quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def commits(folder: Path, count: int) -> list[float]:
    """Return the sorted milliseconds of durable commits of one row, with nothing around them."""
    found = []
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as db:
        db.executescript("pragma journal_mode=wal; pragma synchronous=full; create table t(x)")
        for _ in range(count):
            began = time.perf_counter()
            db.execute("insert into t values (randomblob(500))")
            found.append((time.perf_counter() - began) * 1000)
    return sorted(found)


async def measure(requests: int) -> dict[str, Any]:
    """Return what is added at the median and at the 99th percentile, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        free, paid = await compare(Path(folder), requests)
        bare = commits(Path(folder), requests)
    shares = {"p50": 0.5, "p99": 0.99}

    def quantiles(values: list[float]) -> dict[str, float]:
        return {name: round(quantile(values, share), 3) for name, share in shares.items()}

    of_free, of_paid = quantiles(free), quantiles(paid)
    added = {name: round(of_paid[name] - of_free[name], 3) for name in shares}
    figures = {"added_ms": added, "free_ms": of_free, "paid_ms": of_paid}
    return {"latency": {**figures, "commit_ms": quantiles(bare)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.requests))
    if options.json:
        print(json.dumps(figures))
        return
    added, bare = figures["latency"]["added_ms"], figures["latency"]["commit_ms"]
    print(f"one commit alone takes {bare['p50']:.2f} ms at the median, {bare['p99']:.2f} ms at p99")
    print(f"being paid adds {added['p50']:.2f} ms at the median, {added['p99']:.2f} ms at p99")


if __name__ == "__main__":
    main()
