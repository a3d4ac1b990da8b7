"""One agent that buys on two chains under one budget, while it is killed and its lines break.

    PYTHONPATH=.:tests python -m support.network_faults --tasks 25 --faults 1000 --seed 1

Faults are drawn by the seed: at the shops' doors the payer's process is killed, or an answer is
lost, before the shop looks or after it has worked; between the payer and each chain stand two lines
that break, and a node of the other chain under this one's name.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.run_state import RunState
from agentkit.market.x402 import SIGNATURE
from agentkit.money import Money
from agentkit.payments.channels import contract
from agentkit.payments.channels.lane_networks import lanes_on
from support.processes import PROGRAMS
from support.two_networks import (
    HOME,
    NAMES,
    OTHER,
    Corner,
    Wallet,
    corner_on,
    described,
    two_chains,
    wallet_with,
)
from support.x402_market import PRICE, Handler

BUYER = PROGRAMS / "two_network_buyer.py"
SCHEMES = ("exact", "lanes")
MOST_STARTS = 1000

DOOR = ("kill unseen", "kill asked", "kill answered", "drop", "lose", "503", "502")
LINE = ("drop", "503", "html")
"""What goes wrong at a shop's door, and on the line to a chain."""


@dataclass
class Faults:
    """Faults that are drawn by a seed until none are left; `done` counts them by name.

    `odds` are those of a payment at a shop's door; other requests are disturbed less often.
    """

    random: random.Random
    left: int
    odds: float = 0.7
    done: Counter[str] = field(default_factory=Counter)
    kill: Callable[[], None] = lambda: None

    def draw(self, kinds: tuple[str, ...], *, where: str, odds: float) -> str:
        """Return what goes wrong now, "" for nothing."""
        if self.left <= 0 or self.random.random() >= odds:
            return ""
        kind = self.random.choice(kinds)
        self.left -= 1
        self.done[f"{where}: {kind}"] += 1
        return kind

    async def door(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Stand in front of a shop: what is asked without a payment may be lost as well."""
        paid = SIGNATURE in request.headers
        kinds = DOOR if paid else ("drop", "503")
        fault = self.draw(
            kinds, where="paid" if paid else "unpaid", odds=self.odds if paid else 0.03
        )
        if fault == "503":
            return web.Response(status=503)
        if fault in ("drop", "kill unseen"):
            self._end(request, fault)
            return web.Response()
        if fault == "kill asked":
            self.kill()
        answer = await handler(request)
        if fault in ("lose", "kill answered"):
            self._end(request, fault)
        return web.Response(status=502) if fault == "502" else answer

    def _end(self, request: web.Request, fault: str) -> None:
        if fault.startswith("kill"):
            self.kill()
        elif request.transport is not None:
            request.transport.abort()


@dataclass
class Line:
    """A line to a chain that breaks as the faults have it."""

    upstream: str
    faults: Faults

    async def answer(self, request: web.Request) -> web.StreamResponse:
        fault = self.faults.draw(LINE, where="line", odds=0.15)
        if fault == "503":
            return web.Response(status=503)
        if fault == "html":
            return web.Response(text="<html>Log in</html>", content_type="text/html")
        if fault == "drop" and request.transport is not None:
            request.transport.abort()
            return web.Response()
        headers = {"content-type": "application/json"}
        async with (
            ClientSession() as client,
            client.post(self.upstream, data=await request.read(), headers=headers) as told,
        ):
            return web.json_response(await told.json(content_type=None))


@dataclass(frozen=True)
class Books:
    """What a wallet's books say: spent, delivered, and its channels on each chain."""

    spent: int
    delivered: int
    channels: dict[int, list[bytes]]


@dataclass(frozen=True)
class Outcome:
    """What came of it; `earned` and `works` by chain, `spent` by the wallet's books."""

    tasks: int
    budget: int
    starts: int
    faults: dict[str, int]
    earned: dict[int, int]
    works: dict[int, int]
    gone: dict[int, int]
    spent: int
    delivered: int
    seconds: float
    said: tuple[str, ...]

    @property
    def kills(self) -> int:
        return sum(count for name, count in self.faults.items() if "kill" in name)

    def problems(self) -> list[str]:
        """Return what must never be: paid twice, delivered unpaid, above the budget, unequal."""
        due, found = self.tasks * PRICE, []
        for chain, earned in self.earned.items():
            if earned != due:
                found.append(f"chain {chain}: {earned} earned for {self.tasks} tasks")
            if self.works[chain] != self.tasks:
                found.append(f"chain {chain}: {self.works[chain]} done of {self.tasks} tasks")
            if self.gone[chain] != earned:
                found.append(f"chain {chain}: {self.gone[chain]} left the wallet")
        if self.spent != len(self.earned) * due or self.spent > self.budget:
            found.append(f"{self.spent} spent of {self.budget}")
        if self.delivered != len(self.earned) * self.tasks:
            found.append(f"{self.delivered} answers")
        return found


async def play(*, tasks: int, faults: int, seed: int, folder: Path, odds: float = 0.7) -> Outcome:
    """Buy `tasks` answers on each chain while `faults` faults happen."""
    drawn = Faults(random.Random(seed), faults, odds)
    began = time.monotonic()
    with two_chains() as nodes:
        async with AsyncExitStack() as stack:
            key = secrets.token_bytes(32)
            corners: dict[int, Corner] = {}
            for chain, node in nodes.items():
                place = corner_on(node, chain, folder / str(chain), key)
                corners[chain] = await stack.enter_async_context(place)
                corners[chain].exact.counter.around = drawn.door
                corners[chain].lanes.work.around = drawn.door
            owned = 20 * (tasks + 1) * PRICE  # channels hold more than is bought
            wallet = await wallet_with(corners, folder, units=owned)
            await break_lines(stack, corners, wallet, drawn)
            budget = len(corners) * tasks * PRICE
            starts, said = await buy(wallet, orders(wallet, corners, tasks, budget), drawn)
            known = await books(wallet, corners)
            gone: dict[int, int] = {}
            earned = {chain: await corner.earned() for chain, corner in corners.items()}
            for chain, corner in corners.items():
                left = await corner.world.balance(wallet.signer.address)
                gone[chain] = owned - left - await lying_in(known.channels[chain], corner)
            return Outcome(
                tasks=tasks,
                budget=budget,
                starts=starts,
                faults=dict(drawn.done),
                earned=earned,
                works={chain: corner.works for chain, corner in corners.items()},
                gone=gone,
                spent=known.spent,
                delivered=known.delivered,
                seconds=time.monotonic() - began,
                said=tuple(said),
            )


async def break_lines(
    stack: AsyncExitStack, corners: dict[int, Corner], wallet: Wallet, faults: Faults
) -> None:
    """Put two lines in front of each chain, and between them one to the other chain."""
    urls: dict[int, list[str]] = {}
    for chain, corner in corners.items():
        for _ in range(2):
            app = web.Application()
            app.router.add_post("/", Line(corner.world.network.rpc, faults).answer)
            server = await stack.enter_async_context(TestServer(app))
            urls.setdefault(chain, []).append(str(server.make_url("/")))
    for chain, wrong in ((HOME, OTHER), (OTHER, HOME)):
        first, second = urls[chain]
        wallet.networks[NAMES[chain]] = described(
            corners[chain], first, corners[wrong].world.network.rpc, second
        )


def orders(wallet: Wallet, corners: dict[int, Corner], tasks: int, budget: int) -> Path:
    """Write down what is to be bought: on each chain by turns, by each scheme by turns."""
    urls = [
        corner.url(SCHEMES[number % 2]) for number in range(tasks) for corner in corners.values()
    ]
    settings = {
        **wallet.settings(),
        "home": str(wallet.folder / "agent"),
        "wallet": {"keystore": str(wallet.folder / "wallet.json")},
    }
    money = Money(budget, corners[HOME].world.network.currency)
    path = wallet.folder / "orders.json"
    path.write_text(json.dumps({"settings": settings, "urls": urls, "budget": str(money)}))
    return path


async def buy(wallet: Wallet, path: Path, faults: Faults) -> tuple[int, list[str]]:
    """Start the payer until it is done; returns how often, and what it said on the way."""
    said: list[str] = []
    for start in range(1, MOST_STARTS + 1):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(BUYER), str(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        faults.kill = process.kill
        told, errors = await process.communicate()
        faults.kill = lambda: None
        said.append(told.decode().strip() or f"ended {process.returncode} {errors.decode()[-300:]}")
        if said[-1] == "done":
            return start, said
        if process.returncode not in (0, -9):
            break
    raise AssertionError(f"the payer never came to its end: {said[-5:]}")


async def books(wallet: Wallet, corners: dict[int, Corner]) -> Books:
    """Read what the wallet's books say at the end."""
    address = wallet.signer.address
    journal = await Journal.open(wallet.folder / "agent" / address.lower(), address)
    try:
        totals = await journal.commit(lambda tx: tx.every(r.Total, "ever|"))
        (run,) = await journal.commit(lambda tx: tx.every(r.Run))
        state = RunState.of(run.run, await journal.history(run.run))
        lanes = {
            chain: await journal.commit(partial(lanes_on, network=corner.world.network))
            for chain, corner in corners.items()
        }
    finally:
        await journal.close()
    spent = sum(total.amount.units for total in totals)
    channels = {
        chain: [bytes.fromhex(lane.channel) for lane in found] for chain, found in lanes.items()
    }
    return Books(spent=spent, delivered=len(state.done), channels=channels)


async def lying_in(channels: list[bytes], corner: Corner) -> int:
    """Return what lies in channels and is not claimed, as the chain has it."""
    states = [await contract.channel_on(corner.world.eyes, channel) for channel in channels]
    return sum(state.unclaimed for state in states)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=25)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--odds", type=float, default=0.95)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        outcome = asyncio.run(
            play(
                tasks=given.tasks,
                faults=given.faults,
                seed=given.seed,
                odds=given.odds,
                folder=Path(folder),
            )
        )
    fields: dict[str, Any] = {
        **vars(outcome),
        "kills": outcome.kills,
        "problems": outcome.problems(),
        "said": dict(Counter(line[:60] for line in outcome.said)),
    }
    print(json.dumps(fields, indent=1))
    sys.exit(bool(outcome.problems()))


if __name__ == "__main__":
    main()
