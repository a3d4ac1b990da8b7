"""A worker slot: one task at a time in a Python child, watched for its time and its memory."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentkit.errors import LeaseLost, Refused
from agentkit.pool.child import Child
from agentkit.pool.limits import Limits

_LOOK_EVERY = 0.1  # seconds between looks at a task's time and memory


class Worker:
    """A child that trains, predicts and queries, started at first use and again after it died."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self._limits = folder, limits
        self._child: Child | None = None

    @property
    def loaded(self) -> bool:
        return self._child is not None and self._child.alive

    async def start(self) -> Child:
        """Return the running child, started if need be."""
        if self._child is None or not self._child.alive:
            self._child = await Child.start(
                "agentkit.pool.worker_child",
                self.folder,
                threads=self._limits.threads,
                nice=self._limits.nice,
            )
        return self._child

    @contextmanager
    def room(self) -> Iterator[Path]:
        """Give a task a folder of its own, empty before and gone after."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="task-") as name:
            yield Path(name)

    async def do(self, request: Mapping[str, Any]) -> Any:
        """Return the answer to a request; a caller that gives up kills the child.

        Raises Refused (also over a limit) and LeaseLost.
        """
        child = await self.start()
        asked = asyncio.ensure_future(child.ask(request))
        watched = asyncio.ensure_future(self._over(child))
        try:
            await asyncio.wait({asked, watched}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                return _opened(asked.result())
            raise Refused(watched.result())
        finally:
            if not asked.done():
                await child.kill()
            asked.cancel()
            watched.cancel()
            await asyncio.gather(asked, watched, return_exceptions=True)

    async def _over(self, child: Child) -> str:
        """Wait until the task is over a limit, and say which."""
        clock = asyncio.get_running_loop().time
        start = clock()
        while clock() - start < self._limits.seconds:
            if child.resident > self._limits.memory_mib << 20:
                return f"the task used more than {self._limits.memory_mib} MiB of memory"
            await asyncio.sleep(_LOOK_EVERY)
        return f"the task took longer than {self._limits.seconds:g} s"

    async def close(self) -> None:
        """Kill the child and wait for its end."""
        if self._child:
            await self._child.kill()
        self._child = None


def _opened(answer: Mapping[str, Any]) -> Any:
    if "refused" in answer:
        raise Refused(answer["refused"])
    if "failed" in answer:
        raise LeaseLost(f"the task failed in its slot: {answer['failed']}")
    return answer["done"]
