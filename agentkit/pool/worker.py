"""A worker slot: a Python child process that does one task at a time within limits."""

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
    """A child that trains, predicts and queries, started at its first use, or after it died."""

    def __init__(self, folder: Path, limits: SlotLimits) -> None:
        self.folder = folder
        self._limits = limits
        self._child: Child | None = None

    @property
    def loaded(self) -> bool:
        """Whether the child process runs."""
        return self._child is not None and self._child.alive

    async def start(self) -> Child:
        """Return the running child, and start it if it does not run."""
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
        """Provide an empty folder for one task, which is removed afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="task-") as name:
            yield Path(name)

    async def do(self, request: Mapping[str, Any], meter: Meter) -> Any:
        """Have the child do a task and return its result; it is killed if the caller is cancelled.

        Raises Refused, also when the task exceeds a limit, and LeaseLost.
        """
        child = await self.start()
        answer = await meter.run(child, child.ask(request), self._limits.memory_mib)
        return _result_of(answer)

    async def close(self) -> None:
        """Kill the child and wait until it has ended."""
        if self._child:
            await self._child.kill()
        self._child = None


def _result_of(answer: Mapping[str, Any]) -> Any:
    """Return the result in a child's answer; raises the error that it reports."""
    if "refused" in answer:
        raise Refused(answer["refused"], of_task=answer.get("of_task") is True)
    if "failed" in answer:
        raise LeaseLost(f"the task failed in its slot: {answer['failed']}")
    return answer["done"]
