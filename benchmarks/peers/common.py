"""What a peer's process needs: its task, a clock, its report (stdlib: a peer has no agentkit).

`run.py` starts `python peer_NAME.py TASK.json`.  The peer makes its engine ready, and for each turn
says `start()`, runs the graph and says `stop(values)`; after the last turn, `report()`.  What came
before the first `start()` is its start time.  Values are checked by `run.py`, not here.
"""

from __future__ import annotations

import asyncio
import gc
import graphlib
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

MODULUS = 1_000_003


def mixed(values: list[int]) -> int:
    """Return what a node makes of its parents' values; the rule is that of `runtime.py`."""
    return (1 + 31 * sum(values)) % MODULUS


class Trial:
    """One peer on one graph: parents by node, in topological order, run `turns` times."""

    def __init__(self) -> None:
        task = Path(sys.argv[1])
        self.home = task.parent
        told = json.loads(task.read_text())
        self.parents: list[list[int]] = told["parents"]
        self.turns = range(told["turns"])
        self._spawned: float = told["spawned"]
        self._ready: float | None = None
        self._values: list[list[int]] = []
        self._seconds: list[float] = []

    def start(self) -> None:
        if self._ready is None:
            self._ready = time.time() - self._spawned
            gc.collect()
            gc.freeze()  # as runtime.py does for agentkit
        self._started = time.perf_counter()

    def stop(self, values: list[int]) -> None:
        self._seconds.append(time.perf_counter() - self._started)
        self._values.append(values)

    def report(self) -> NoReturn:
        """Write what was measured and leave at once; `run.py` ends what the engine left running."""
        told = {"start_s": self._ready, "seconds": self._seconds, "values": self._values}
        (self.home / "report.json").write_text(json.dumps({**told, "peak_mb": peak_mb()}))
        os._exit(0)


def peak_mb() -> float:
    """Return this process's peak; on Linux not by rusage, which counts what the parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def sorter(parents: list[list[int]]) -> graphlib.TopologicalSorter[int]:
    made = graphlib.TopologicalSorter(dict(enumerate(parents)))
    made.prepare()
    return made


async def walk(
    order: graphlib.TopologicalSorter[int],
    parents: list[list[int]],
    node: Callable[[list[int]], Awaitable[int]],
) -> list[int]:
    """Run every node as an asyncio task as soon as graphlib says its parents are done."""
    values, finished = [0] * len(parents), asyncio.Queue[int]()

    async def one(number: int) -> None:
        values[number] = await node([values[p] for p in parents[number]])
        finished.put_nowait(number)

    async with asyncio.TaskGroup() as group:
        while order.is_active():
            for number in order.get_ready():
                group.create_task(one(number))
            order.done(await finished.get())
            while not finished.empty():
                order.done(finished.get_nowait())
    return values
