"""A bounded set of workers that take what is ready, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class WorkerPool(Generic[T]):
    """Up to `size` tasks that do what is added, each one thing after another.

    A task for each thing would cost several times as much.  `do` raises nothing; `rested` is
    called when the last worker has ended.
    """

    def __init__(
        self, size: int, do: Callable[[T], Awaitable[None]], rested: Callable[[], None]
    ) -> None:
        self._size = size
        self._do = do
        self._rested = rested
        self._ready: deque[T] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._coming = self._stopped = False

    @property
    def busy(self) -> bool:
        """Whether something is under way or waits."""
        return bool(self._workers)

    @property
    def waiting(self) -> int:
        """How many things nobody has begun."""
        return len(self._ready)

    def add(self, thing: T) -> None:
        """Have a thing done as soon as a worker is free."""
        if not self._stopped:
            self._ready.append(thing)
            self._call_one_more()

    def stop(self) -> None:
        """Begin nothing more, and leave what is under way."""
        self._stopped = True
        self._ready.clear()
        for worker in self._workers:
            worker.cancel()

    def _call_one_more(self) -> None:
        """Start a worker, unless one is on its way or there are enough."""
        if self._coming or len(self._workers) == self._size:
            return
        self._coming = True
        worker = asyncio.create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._ended)

    async def _work(self) -> None:
        self._coming = False
        while self._ready:
            thing = self._ready.popleft()
            if self._ready:  # in case this one has to wait for something
                self._call_one_more()
            await self._do(thing)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not self._workers:
            self._rested()
