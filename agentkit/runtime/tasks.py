"""Several asyncio tasks at once: in the order in which they end, and given up together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")


async def as_they_end(tasks: Iterable[asyncio.Task[T]]) -> AsyncIterator[asyncio.Task[T]]:
    """Yield tasks in the order in which they end, whether by a result or by an error."""
    waiting = set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            yield task


async def cancel_and_wait(tasks: Iterable[asyncio.Task[T]]) -> None:
    """Cancel tasks whose outcome is not wanted any more, and wait until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
