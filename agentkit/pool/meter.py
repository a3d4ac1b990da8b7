"""What one task uses of its children, measured, and the end of it when it has used its all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TypeVar

from agentkit.errors import Refused
from agentkit.pool.child import Child

T = TypeVar("T")

LOOK_EVERY = 0.1
"""Seconds between looks at a task's time and memory."""


@dataclass(frozen=True, slots=True)
class TaskAllowance:
    """What one task may use: seconds of processor time, and on the clock without the queue."""

    cpu_seconds: float
    seconds: float


class Meter:
    """Counts what one task uses, in whichever children do parts of it."""

    def __init__(self, allowance: TaskAllowance) -> None:
        self._allowance = allowance
        self._cpu_seconds = 0.0
        self._ends_at: float | None = None

    @property
    def cpu_ms(self) -> int:
        """Milliseconds of processor time used so far."""
        return round(self._cpu_seconds * 1000)

    async def run(self, child: Child, work: Coroutine[None, None, T], memory_mib: int) -> T:
        """Do a part of the task in a child, which is killed when the task is over its allowance.

        So it is when it uses more than `memory_mib` of resident memory, or when the caller gives
        up.  Raises Refused, saying which limit it was.
        """
        before = child.cpu_seconds()
        already = self._cpu_seconds
        working = asyncio.ensure_future(work)
        watching = asyncio.ensure_future(self._watch(child, already - before, memory_mib))
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                self._look(child, already - before)
                return working.result()
            raise Refused(watching.result())
        finally:
            if not working.done():
                await child.kill()
            working.cancel()
            watching.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    def _look(self, child: Child, offset: float) -> None:
        """Read the child's time; one that has ended reads as 0, and what was seen last stays."""
        self._cpu_seconds = max(self._cpu_seconds, child.cpu_seconds() + offset)

    async def _watch(self, child: Child, offset: float, memory_mib: int) -> str:
        """Wait until the task is over a limit, and say which."""
        clock, allowed = asyncio.get_running_loop().time, self._allowance
        if self._ends_at is None:
            self._ends_at = clock() + allowed.seconds
        while clock() < self._ends_at:
            self._look(child, offset)
            if self._cpu_seconds > allowed.cpu_seconds:
                return f"the task used more than {allowed.cpu_seconds:g} s of processor time"
            if child.resident > memory_mib << 20:
                return f"the task used more than {memory_mib} MiB of memory"
            await asyncio.sleep(LOOK_EVERY)
        return f"the task took longer than {allowed.seconds:g} s"
