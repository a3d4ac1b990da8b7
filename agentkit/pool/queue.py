"""The queue of calls that wait for slots of one kind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from agentkit.errors import RateLimited

S = TypeVar("S")


class QueueLimit:
    """Counts the calls that wait in all queues of a pool; `most` is the largest number allowed."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting = 0


class SlotQueue(Generic[S]):
    """Slots of one kind, given out first come, first served.

    The slot that was used last is given out first, because its model is loaded.
    """

    def __init__(self, slots: Sequence[S], limit: QueueLimit) -> None:
        self.slots = tuple(slots)
        self._free = list(reversed(self.slots))
        self._free_count = asyncio.Semaphore(len(self.slots))
        self._limit = limit
        self._last_call_seconds = 1.0

    def check_room(self) -> None:
        """Raise RateLimited if a call would have to wait and too many calls wait already."""
        if self._free_count.locked() and self._limit.waiting >= self._limit.most:
            raise RateLimited(
                f"{self._limit.waiting} calls wait already",
                retry_after=round(self._last_call_seconds, 3),
            )

    @asynccontextmanager
    async def take(self, *, bounded: bool = True) -> AsyncIterator[S]:
        """Wait for a free slot and hold it for the duration of the `async with`.

        Raises RateLimited if too many calls wait already.  A caller that holds another slot passes
        `bounded=False`: its call has been accepted, and refusing it now would waste its work.
        """
        if bounded:
            self.check_room()
        await self._wait_for_slot()
        slot = self._free.pop()
        start = time.monotonic()
        try:
            yield slot
        finally:
            self._last_call_seconds = time.monotonic() - start
            self._free.append(slot)
            self._free_count.release()

    async def _wait_for_slot(self) -> None:
        self._limit.waiting += 1
        try:
            await self._free_count.acquire()
        finally:
            self._limit.waiting -= 1
