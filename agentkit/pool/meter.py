"""Measures the time and memory that one task uses in child processes, and enforces its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TypeVar

from agentkit.errors import Refused
from agentkit.pool.child import Child

T = TypeVar("T")

LOOK_EVERY = 0.1
"""Seconds between two measurements of a task's time and memory."""


@dataclass(frozen=True, slots=True)
class TaskAllowance:
    """The seconds of processor time that one task may use, and the seconds that it may take.

    Time in the queue does not count.
    """

    cpu_seconds: float
    seconds: float


class Meter:
    """Adds up what one task uses in all child processes that do parts of it."""

    def __init__(self, allowance: TaskAllowance) -> None:
        self._allowance = allowance
        self._cpu_seconds = 0.0
        self._ends_at: float | None = None

    @property
    def cpu_ms(self) -> int:
        """Milliseconds of processor time used so far."""
        return round(self._cpu_seconds * 1000)

    async def run(self, child: Child, work: Coroutine[None, None, T], memory_mib: int) -> T:
        """Await a part of the task that a child does, and return its result.

        The child is killed if the task exceeds its allowance, if the child uses more than
        `memory_mib` of resident memory, or if the caller is cancelled: a child cannot be stopped in
        any other way.  Raises Refused with the limit that was exceeded.
        """
        # The child may have worked for other tasks before; that time is not this task's.
        offset = self._cpu_seconds - child.cpu_seconds()
        working = asyncio.ensure_future(work)
        watching = asyncio.ensure_future(self._watch(child, offset, memory_mib))
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                self._measure(child, offset)
                return working.result()
            raise Refused(watching.result())
        finally:
            if not working.done():
                await child.kill()
            working.cancel()
            watching.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    def _measure(self, child: Child, offset: float) -> None:
        """Update the processor time; a child that has ended reads as 0, so it never decreases."""
        self._cpu_seconds = max(self._cpu_seconds, child.cpu_seconds() + offset)

    async def _watch(self, child: Child, offset: float, memory_mib: int) -> str:
        """Wait until the task exceeds a limit, and return a sentence that names it."""
        clock = asyncio.get_running_loop().time
        allowance = self._allowance
        if self._ends_at is None:
            self._ends_at = clock() + allowance.seconds
        while clock() < self._ends_at:
            self._measure(child, offset)
            if self._cpu_seconds > allowance.cpu_seconds:
                return f"the task used more than {allowance.cpu_seconds:g} s of processor time"
            if child.resident > memory_mib << 20:
                return f"the task used more than {memory_mib} MiB of memory"
            await asyncio.sleep(LOOK_EVERY)
        return f"the task took longer than {allowance.seconds:g} s"
