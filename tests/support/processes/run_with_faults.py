"""Agents that meet a fault in a process of their own.

python run_with_faults.py VERB FOLDER [MORE]
"""

import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agentkit.artifacts import Json
from agentkit.errors import AgentKitError, ProviderError, RunPaused
from agentkit.graph.builder import JobGraph
from agentkit.journal.events import AttemptClosed as Closed
from agentkit.market.attempt import Attempt
from agentkit.market.task import Task
from agentkit.money import Rate
from agentkit.providers.openai import EndpointSettings, OpenAI, Profile
from agentkit.runtime import history
from agentkit.runtime import run as runs
from agentkit.testing.fakes import NETWORK, ToyRail
from support.fault_jobs import HALF, Endless, all_is_well, mapped
from support.toy_market import Toy, toy

BIG_ROWS, LETTERS = 60, 4000
ROOM = 512 * 1024
"""Bytes that the log of the state file may still grow by."""


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def told(wrong: BaseException) -> dict[str, str]:
    return {
        "error": type(wrong).__name__,
        "says": str(wrong),
        "hint": wrong.hint if isinstance(wrong, AgentKitError) else "",
    }


def peak_kib() -> int:
    """Return the most memory this process has had; `ru_maxrss` may be that of its parent."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1])


# -- a full disk ---------------------------------------------------------------------------------


def limit_files(size: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size < 0 else size, most))


def refused_write(path: Path, at: int) -> int:
    """Return the errno with which the system refuses one byte at a place of a file."""
    file = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(file, b"x", at)
    except OSError as wrong:
        return wrong.errno or 0
    finally:
        os.close(file)
    return 0


async def full(folder: Path, moment: str) -> None:
    """Run until the disk is full, then make room and go on."""
    async with toy(folder) as market:
        plan = await market.plan(mapped(folder, BIG_ROWS, LETTERS))
        log = market.journal.path.with_name("state.db-wal")
        limit = log.stat().st_size + ROOM if moment == "later" else log.stat().st_size + 4096
        limit_files(limit)
        run = None
        try:
            run = await runs.start(market.means, plan)
            await run.result()
        except AgentKitError as wrong:
            say(
                **told(wrong),
                errno=refused_write(log, limit),
                left=limit - log.stat().st_size,
                executed=len(market.executions),
            )
        limit_files(-1)
        if run is None:
            return
        before = len((await history.read(market.journal, run.id)).receipts)
        run = await runs.resume(market.means, run.id)
        result = await run.result()
        await all_is_well(market, run.status, BIG_ROWS)
        say(before=before, receipts=len(result.receipts), executed=len(market.executions))


# -- a journal that may not be written -----------------------------------------------------------


async def resume(folder: Path, run: str) -> None:
    """Go on with a run, as a user who is not root."""
    with tempfile.TemporaryDirectory() as other:  # what is imported late may be root's alone
        async with toy(Path(other)) as market:
            await market.run(mapped(Path(other)))
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        async with toy(folder) as market:
            result = await (await runs.resume(market.means, run)).result()
            say(receipts=len(result.receipts), uid=os.getuid())
    except AgentKitError as wrong:
        say(**told(wrong), uid=os.getuid())


# -- death in the middle -------------------------------------------------------------------------


async def die(folder: Path) -> None:
    """Buy half of the rows, one after the other, and be killed."""

    def kill(task: Task, attempt: Attempt) -> ProviderError | None:
        if attempt.item == HALF:
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    async with toy(folder) as market:
        for provider in market.providers.values():
            provider.lanes, provider.before = 1, kill
        run = await runs.start(market.means, await market.plan(mapped(folder)))
        (folder / "run").write_text(run.id)
        await run.result()


# -- a chat endpoint -----------------------------------------------------------------------------

CHATTY = Profile("chatty", "toy", "billed")
CHATTY_MODEL = "theirs/model"


def chatty(name: str, url: str) -> OpenAI:
    """Return the real adapter for an endpoint that bills whatever it sends."""
    prices = {unit: Rate.parse("10 USDC per 1M tokens") for unit in ("input", "output")}
    return OpenAI(name, url, NETWORK, CHATTY, EndpointSettings(prices, {"m": CHATTY_MODEL}))


async def listen(folder: Path, url: str) -> None:
    """Ask an endpoint, and tell by how much the process has grown."""
    far: Any = chatty("far", url)
    async with toy(folder, rail=ToyRail(CHATTY.pays), far=far) as market:
        graph = JobGraph("asking")
        graph.infer("ask", model="m", prompt="hello", retries=0)
        run = await runs.start(market.means, await market.plan(graph))
        before = peak_kib()
        try:
            await run.result()
        except AgentKitError as wrong:
            state = await history.read(market.journal, run.id)
            grown = peak_kib() - before
            why = [x for x in await market.journal.history(run.id) if isinstance(x, Closed)]
            says = "; ".join(x.reason for x in why)
            say(**{**told(wrong), "says": says}, grown_kib=grown, receipts=len(state.receipts))
        await far.close()


# -- ten thousand nodes --------------------------------------------------------------------------

CHAINS = LENGTH = 100


class Calls:
    """Writes down which node was called; one system call each."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "calls.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def graph(self) -> JobGraph:
        graph = JobGraph("many")

        def following(before: Json) -> int:
            number = int(before.value) + 1
            os.write(self._file, b"%d\n" % number)
            return number

        for chain in range(CHAINS):

            def root(number: int = chain * LENGTH) -> int:
                os.write(self._file, b"%d\n" % number)
                return number

            last = graph.local(f"n{chain * LENGTH}", root)
            for number in range(chain * LENGTH + 1, (chain + 1) * LENGTH):
                last = graph.local(f"n{number}", following, last)
        return graph


async def many(folder: Path) -> None:
    """Execute ten thousand nodes, or go on where they were left."""
    frozen = Calls(folder).graph().freeze()
    async with toy(folder) as market:
        known = folder / "run"
        plan = None if known.exists() else await market.plan(frozen)
        began = time.monotonic()
        if plan is None:
            run = await runs.resume(market.means, known.read_text(), graph=frozen)
        else:
            run = await runs.start(market.means, plan)
            known.write_text(run.id)
        await run.result()
        say(seconds=time.monotonic() - began, done=len(run.status.done))


# -- readers of events ---------------------------------------------------------------------------

ROW, LONG = 4, 500


def plus_one(before: Json) -> int:
    return int(before.value) + 1


def zero() -> int:
    return 0


async def read_slowly(run: runs.Run, seconds: float, seen: list[object]) -> None:
    async for event in run.events():
        seen.append(event)
        await asyncio.sleep(seconds)


async def readers(folder: Path, how: str) -> None:
    """Execute nodes while somebody reads their events: `nobody`, `never` goes on, or `slowly`."""
    graph = JobGraph("watched")
    for chain in range(ROW):
        last = graph.local(f"c{chain}n0", zero)
        for n in range(1, LONG):
            last = graph.local(f"c{chain}n{n}", plus_one, last)
    async with toy(folder) as market:
        plan = await market.plan(graph)
        run = await runs.start(market.means, plan)
        seen: list[object] = []
        began = time.monotonic()
        waits = {"nobody": [], "never": [3600.0] * 2, "slowly": [1.0] * 2}[how]
        tasks = [asyncio.create_task(read_slowly(run, seconds, seen)) for seconds in waits]
        await run.ended()
        seconds = time.monotonic() - began
        peak = peak_kib()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        written = len(await market.journal.rows(run.id))
        done = len(run.status.done)
        say(seconds=seconds, peak_kib=peak, seen=len(seen), written=written, done=done)


# -- two at once ---------------------------------------------------------------------------------


async def both(folder: Path) -> None:
    """Try to resume a run each time the word is given; the owner keeps it until the next word."""
    async with toy(folder, one=Endless("one", folder / "one")) as market:
        say(pid=os.getpid())
        while word := await asyncio.to_thread(sys.stdin.readline):
            await one_try(market, word.strip())


async def one_try(market: Toy, run_id: str) -> None:
    try:
        run = await runs.resume(market.means, run_id)
    except RunPaused as refused:
        say(owner=False, **told(refused))
        await asyncio.to_thread(sys.stdin.readline)
        return
    say(owner=True)
    await asyncio.to_thread(sys.stdin.readline)
    await run.stop()
    say(stopped=True)


if __name__ == "__main__":
    verb, place, *rest = sys.argv[1:]
    asyncio.run(globals()[verb](Path(place), *rest))
