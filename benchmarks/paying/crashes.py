"""What is charged twice, delivered unpaid or lost while payers and their provider are killed.

    python benchmarks/paying/crashes.py --json --calls 10000 --at-once 64 --kills 100

Our own node, with a pool that answers at once, sells to three payers at the same time: the SDK's
Python client and its JavaScript client (a channel each, one call at a time, on their file storage)
and our own (one run, many calls at once on one channel that is paid on delivery).  Payers and node
are killed by SIGKILL, which of them is drawn by a seed, whenever the node has answered so many
more calls, and started again.  Then: our payer at the SDK's server with answers that get lost, and
the SDK's client on its file storage at the SDK's server, killed in as many calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from aiohttp import web
from crash_roles import CHAT, MODEL, PAUSED, Orders
from support.chain_processes import CHAIN_ID, KEYS, ROOT, anvil
from support.x402_market import World, answer, facilitator, payer, world_on
from support.x402_sdk_client import InThreads, stock_shop

from agentkit.errors import RunPaused
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels import contract
from agentkit.payments.channels.claiming import Claiming, ClaimPolicy
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.terms import CLOSE_DELAY
from agentkit.payments.x402.remote import Facilitator
from agentkit.runtime.history import read as read_run

OWNED = 10**9
STOCK_SHARE = 10
"""Each of the SDK's clients makes one call of so many."""


@dataclass(eq=False)
class Child:
    """A process that is started again when it dies, until it ends by itself with 0."""

    name: str
    command: Sequence[str]
    orders: str = ""
    says: str = ""
    deaths: int = 0
    stopped: bool = False
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Keep it running until it is done or stopped."""
        while not self.stopped:
            self.process = process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with suppress(ConnectionError):
                    process.stdin.write(self.orders.encode())
                    await process.stdin.drain()
                if self.says and (await process.stdout.readline()).decode().strip() == self.says:
                    self.ready.set()
                await process.stdout.read()
                code = await process.wait()
                if code == 0:
                    return
                if code not in (PAUSED, -signal.SIGKILL):
                    raise RuntimeError(f"{self.name} ended with {code}")
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    def kill(self) -> bool:
        """Kill it now; returns whether it ran."""
        if self.process is None or self.process.returncode is not None:
            return False
        self.process.send_signal(signal.SIGKILL)
        self.deaths += 1
        return True

    def stop(self) -> None:
        """Kill it, and start it no more."""
        self.stopped = True
        if self.process is not None and self.process.returncode is None:
            self.process.kill()


def role(name: str, of: str, orders: Orders, says: str = "") -> Child:
    command = [sys.executable, str(Path(__file__).with_name("crash_roles.py")), of]
    return Child(name, command, orders.line(), says)


# -- at our node ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """How many calls, how many of ours at once, how many kills, drawn by which seed."""

    calls: int
    at_once: int
    kills: int
    seed: int

    @property
    def stock(self) -> int:
        """The calls of each of the SDK's clients."""
        return max(1, self.calls // STOCK_SHARE)

    @property
    def ours(self) -> int:
        return max(1, self.calls - 2 * self.stock)


async def at_our_node(world: World, folder: Path, settles: str, sizes: Sizes) -> dict[str, Any]:
    """Sell to all three payers under kills, and count what went wrong for each."""
    seller = secrets.token_bytes(32)
    url = f"http://127.0.0.1:{free_port()}"
    at = (world.network.rpc, world.network.token)
    node_orders = Orders(folder, *at, seller, url, at_once=sizes.at_once, facilitator=settles)
    node = role("node", "node", node_orders, "serves")
    keys = {name: secrets.token_bytes(32) for name in ("ours", "python", "javascript")}
    for key in keys.values():
        await world.mint(KeySigner(key).address, OWNED)
    python = stock_orders(folder / "python", at, keys["python"], url, sizes.stock)
    payers = [
        role("ours", "ours", Orders(folder, *at, keys["ours"], url, sizes.ours)),
        role("python", "stock", python),
        javascript(folder, at, keys["javascript"], url, sizes.stock),
    ]
    serving = asyncio.create_task(node.run())
    try:
        await node.ready.wait()
        buying = [asyncio.create_task(child.run()) for child in payers]
        killing = asyncio.create_task(kill_on_the_way(folder / "works", [node, *payers], sizes))
        await asyncio.gather(*buying)
        killing.cancel()
    finally:
        node.stop()
        for child in payers:
            child.stop()
        await serving
    kills = {child.name: child.deaths for child in (node, *payers)}
    return {"kills": kills, **await audited(world, folder, settles, seller, keys=keys, sizes=sizes)}


def stock_orders(own: Path, at: tuple[str, str], key: bytes, url: str, calls: int) -> Orders:
    """Return the orders of one of the SDK's clients, which has a folder of its own."""
    own.mkdir()
    return Orders(own, *at, key, url, calls)


def javascript(folder: Path, at: tuple[str, str], key: bytes, url: str, calls: int) -> Child:
    own = folder / "javascript"
    own.mkdir()
    script = ROOT / "tests/npm/x402-file-client.mjs"
    rpc, token = at
    arguments = (url + CHAT, rpc, "0x" + key.hex(), token, CHAIN_ID, calls, own, MODEL)
    node = shutil.which("node") or "node"
    return Child("javascript", [node, str(script), *map(str, arguments)])


async def kill_on_the_way(works: Path, children: list[Child], sizes: Sizes) -> None:
    """Kill a child that the seed draws, each time that the node has answered so many more calls."""
    draw = random.Random(sizes.seed)  # the same kills each time
    marks = sorted(draw.randrange(1, sizes.calls) for _ in range(sizes.kills))
    for mark in marks:
        while answered(works) < mark:
            await asyncio.sleep(0.005)
        running = list(children)
        draw.shuffle(running)
        next((child for child in running if child.kill()), None)


def answered(works: Path) -> int:
    return works.read_bytes().count(b"\n") if works.exists() else 0


async def audited(
    world: World,
    folder: Path,
    settles: str,
    seller: bytes,
    *,
    keys: dict[str, bytes],
    sizes: Sizes,
) -> dict[str, Any]:
    """Claim all that the node earned, and compare its books, the payers' and the chain."""
    signer = KeySigner(seller)
    journal = await Journal.open(folder / "node", signer.address)
    chain, settling = Web3Chain(world.network), Facilitator(settles)
    try:
        claiming = Claiming(
            journal,
            chain,
            world.network,
            settling,
            signer,
            payee=signer.address,
            delay=CLOSE_DELAY,
            policy=ClaimPolicy(),
            mirror=ChannelMirror(journal, chain, delay=CLOSE_DELAY),
        )
        await claiming.claim_all()
        sold = await claiming.channels()
        charges = [row.event() for row in await journal.rows(e.NODE)]
        unclaimable = 0
        for channel in sold:
            state = await contract.channel_on(chain, bytes.fromhex(channel.channel))
            unclaimable += channel.charged - state.total_claimed
        by_payer: dict[str, list[r.SoldChannel]] = {}
        for channel in sold:
            by_payer.setdefault(str(channel.config["payer"]).lower(), []).append(channel)
        found: dict[str, Any] = {"unclaimable_units": unclaimable}
        for name in ("python", "javascript"):
            own = by_payer.get(KeySigner(keys[name]).address.lower(), [])
            ids = {channel.channel for channel in own}
            charged = sum(
                isinstance(event, e.RequestCharged) and event.channel in ids for event in charges
            )
            found[name] = {
                "calls": sizes.stock,
                "channels": len(own),
                "charged_twice": max(0, charged - sizes.stock),
                "delivered_unpaid": max(0, sizes.stock - charged),
            }
        jobs = await journal.commit(lambda tx: tx.every(r.Job))
        found["ours"] = await ours_audited(folder, keys["ours"], jobs, sizes)
        return found
    finally:
        await settling.close()
        await chain.close()
        await journal.close()


async def ours_audited(folder: Path, key: bytes, jobs: list[r.Job], sizes: Sizes) -> dict[str, Any]:
    """Compare what our payer promised, what its receipts say, and what the node delivered."""
    journal = await Journal.open(folder / "ours", KeySigner(key).address)
    try:
        (run,) = await journal.commit(lambda tx: tx.every(r.Run))
        receipts = (await read_run(journal, run.run)).receipts
        rows = await journal.rows(run.run)
        channels = await journal.commit(lambda tx: tx.every(r.Channel))
    finally:
        await journal.close()
    paid = [receipt for receipt in receipts if receipt.standing == "paid"]
    bought = {receipt.attempt.purchase for receipt in paid}
    promised = sum(channel.cumulative for channel in channels)
    known = {receipt.attempt.id for receipt in paid}
    unpaid = {job.attempt for job in jobs if job.state == "done"} - known
    events = [row.event() for row in rows]
    closed = [x for x in events if isinstance(x, e.AttemptClosed) and x.attempt in unpaid]
    return {
        "calls": sizes.ours,
        "bought": len(bought),
        "channels": len(channels),
        "charged_twice": len(paid) - len(bought),
        "promised_beyond_receipts_units": promised - sum(x.amount.units for x in paid),
        "delivered_unpaid": len(unpaid),
        "closed_because": sorted(x.reason for x in closed),
    }


# -- at the SDK's server -------------------------------------------------------------------------


async def lost_answers(world: World, folder: Path, calls: int, lost: int) -> dict[str, Any]:
    """Buy at the SDK's server, which loses some answers; say what our payer makes of them."""
    draw = random.Random(1)  # the same each time
    losing, works, asked = set(draw.sample(range(1, calls), lost)), 0, 0

    async def work(_: web.Request) -> web.Response:
        nonlocal works
        works += 1
        return web.json_response(answer(f"answer {works}"))

    def loses() -> bool:
        if asked in losing:
            losing.discard(asked)
            return True
        return False

    settles, authorizer = InThreads(world, KEYS[3]), secrets.token_bytes(32)
    standings: list[str] = []
    async with (
        stock_shop(world, settles, work, channels=authorizer, loses=loses) as url,
        payer(world, folder, url, units=OWNED, lanes=True) as wallet,
    ):
        for number in range(calls):
            asked = number
            try:
                result = await wallet.run(prompt=f"number {number}")
            except RunPaused as paused:
                before = works
                result = await wallet.resume(paused.run_id, rebuy=True)
                assert works == before + 1, "it was asked to buy it again, once"
            standings += [receipt.standing for receipt in result.receipts]
    not_received = standings.count("charged, not received")
    return {
        "calls": calls,
        "lost": lost,
        "charged_not_received": not_received,
        "bought_again_unasked": works - calls - not_received,
        "paid": standings.count("paid"),
    }


async def stock_on_files(world: World, folder: Path, calls: int, kills: int) -> dict[str, Any]:
    """Kill the SDK's client on its file storage in calls of the SDK's server; count the charges.

    Not in its first call: its deposit is on the chain then and not on file, and it asks for ever.
    """
    draw = random.Random(2)  # the same each time
    killed_in, works, key = set(draw.sample(range(2, calls), kills)), 0, secrets.token_bytes(32)
    child: Child | None = None

    async def work(_: web.Request) -> web.Response:
        nonlocal works
        works += 1
        if works in killed_in and child is not None:
            child.kill()
        return web.json_response(answer(f"answer {works}"))

    await world.mint(KeySigner(key).address, OWNED)
    settles, authorizer = InThreads(world, KEYS[3]), secrets.token_bytes(32)
    at = (world.network.rpc, world.network.token)
    async with stock_shop(world, settles, work, channels=authorizer) as url:
        orders = stock_orders(folder / "files", at, key, url, calls)
        child = role("files", "stock", orders)
        await child.run()
    return {"calls": calls, "kills": child.deaths, "charged_twice": works - calls}


# ------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def measure(sizes: Sizes) -> dict[str, Any]:
    """Return the counts of all three parts."""
    with anvil() as chain, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with world_on(chain) as world, facilitator(world, folder) as settles:
            some = min(max(2, sizes.kills), sizes.stock - 1)
            return {
                "crashes": {
                    "our_node": await at_our_node(world, folder, settles, sizes),
                    "stock_server": await lost_answers(world, folder, sizes.stock, some),
                    "stock_client_on_files": await stock_on_files(world, folder, sizes.stock, some),
                }
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes = Sizes(options.calls, options.at_once, options.kills, options.seed)
    found = asyncio.run(measure(sizes))
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
