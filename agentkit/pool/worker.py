"""A worker slot: one task at a time in a Python child, watched for its time and its memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentkit.errors import LeaseLost, Refused
from agentkit.pool.child import Child
from agentkit.pool.limits import SlotLimits
from agentkit.pool.meter import Meter


class Worker:
    """A child that trains, predicts and queries, started at first use and again after it died."""

    def __init__(self, folder: Path, limits: SlotLimits) -> None:
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

    async def do(self, request: Mapping[str, Any], meter: Meter) -> Any:
        """Return the answer to a request; a caller that gives up kills the child.

        Raises Refused (also over a limit) and LeaseLost.
        """
        child = await self.start()
        return _opened(await meter.run(child, child.ask(request), self._limits.memory_mib))

    async def close(self) -> None:
        """Kill the child and wait for its end."""
        if self._child:
            await self._child.kill()
        self._child = None


def _opened(answer: Mapping[str, Any]) -> Any:
    if "refused" in answer:
        raise Refused(answer["refused"], of_task=answer.get("of_task") is True)
    if "failed" in answer:
        raise LeaseLost(f"the task failed in its slot: {answer['failed']}")
    return answer["done"]
