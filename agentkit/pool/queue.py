"""Slots of one sort and the line of calls before them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from agentkit.errors import RateLimited

S = TypeVar("S")


class Door:
    """The number of calls that wait anywhere in a pool, and the most there may be."""

    def __init__(self, most: int) -> None:
        self.most, self.waiting = most, 0


class Line(Generic[S]):
    """First come, first served; the slot used last is handed out first, because it is warm."""

    def __init__(self, slots: Sequence[S], door: Door) -> None:
        self.slots = tuple(slots)
        self._free = list(reversed(self.slots))
        self._turn = asyncio.Semaphore(len(self.slots))
        self._door = door
        self._seconds = 1.0  # that the last call took

    def check_room(self) -> None:
        """Raise RateLimited when a call would have to wait and too many wait already."""
        if self._turn.locked() and self._door.waiting >= self._door.most:
            raise RateLimited(
                f"{self._door.waiting} calls wait already", retry_after=round(self._seconds, 3)
            )

    @asynccontextmanager
    async def take(self, *, bounded: bool = True) -> AsyncIterator[S]:
        """Hold a slot, after waiting for one.

        Raises RateLimited when too many wait already, unless the caller holds another slot.
        """
        if bounded:
            self.check_room()
        await self._wait()
        slot, start = self._free.pop(), time.monotonic()
        try:
            yield slot
        finally:
            self._seconds = time.monotonic() - start
            self._free.append(slot)
            self._turn.release()

    async def _wait(self) -> None:
        self._door.waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._door.waiting -= 1
