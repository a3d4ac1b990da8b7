"""When a second provider is asked although the first has not failed.

The rule of "The Tail at Scale" (Dean and Barroso, 2013): a call that takes much longer than usual
is made once more elsewhere, the first answer counts, and few such calls are enough.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from statistics import median
from typing import Any, TypeVar

from agentkit.runtime.tasks import as_they_end, cancel_and_wait

T = TypeVar("T")

SLOW = 2.0
"""How many times the running median a call takes before a second is made."""

MOST_EXTRA = 0.06
"""Share of a run's calls that may be made on top of them."""

FEWEST = 5
"""Calls of a node that have to end before its median says anything."""


LOOK_AGAIN = 1.0
"""Seconds until a call is looked at again while its node's median is not known yet."""


class Hedges:
    """What one run knows of the durations of its calls, and of the extra calls it made."""

    def __init__(self) -> None:
        self._seconds: dict[str, deque[float]] = {}
        self.calls = 0
        self.extra = 0

    def took(self, node: str, seconds: float) -> None:
        """Note how long a call of a node took."""
        self._seconds.setdefault(node, deque(maxlen=101)).append(seconds)

    def patience(self, node: str) -> float | None:
        """Return the seconds after which a call of a node is slow, None while nobody can say."""
        known = self._seconds.get(node, ())
        return SLOW * median(known) if len(known) >= FEWEST else None

    def allowed(self) -> bool:
        """Return whether one more extra call keeps within the cap."""
        return self.extra + 1 <= MOST_EXTRA * self.calls


async def race(
    hedges: Hedges,
    node: str,
    first: Coroutine[Any, Any, T],
    submitting: asyncio.Event,
    start_second: Callable[[], Coroutine[Any, Any, T]] | None,
) -> T:
    """Return the result of a call, or of a second one that starts when the first is slow.

    The time counts from `submitting`, when the first provider is asked.  Whichever result comes
    first is taken and the other call cancelled; if neither delivers, the first one's error is
    raised.  Without `start_second` there is nobody else to ask.
    """
    first_call = asyncio.create_task(first)
    calls = {first_call}
    try:
        if start_second and await _is_slow(hedges, node, first_call, submitting):
            hedges.extra += 1
            calls.add(asyncio.create_task(start_second()))
        async for call in as_they_end(calls):
            if not call.cancelled() and call.exception() is None:
                return call.result()
        return first_call.result()
    finally:
        await cancel_and_wait(calls)


async def _is_slow(
    hedges: Hedges, node: str, call: asyncio.Task[T], submitting: asyncio.Event
) -> bool:
    """Wait until a call ends or takes too long; returns whether a second may be made."""
    submitted = asyncio.ensure_future(submitting.wait())
    await asyncio.wait([call, submitted], return_when=asyncio.FIRST_COMPLETED)
    submitted.cancel()

    started = time.monotonic()
    while not call.done():
        patience = hedges.patience(node)
        if patience is None:
            await asyncio.wait([call], timeout=LOOK_AGAIN)
            continue
        left = started + patience - time.monotonic()
        if left <= 0 and hedges.allowed():
            return True
        # While the cap is used up, later calls may raise it: look again after a while.
        await asyncio.wait([call], timeout=max(left, patience / 4, 0.01))
    return False
