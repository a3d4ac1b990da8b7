"""How many attempts may be under way at one provider node."""

from __future__ import annotations

import asyncio

from agentkit.market.attempt import Attempt
from agentkit.market.offer import Offer
from agentkit.runtime.context import RunContext

MOST_LANES = 64
"""Attempts that are under way at one provider node, whatever it says it takes."""


class Lanes:
    """Bounds the concurrent attempts at each provider node.

    Attempts that an earlier process left open occupy a lane until they are taken up: the provider
    is still working on them.
    """

    def __init__(self, context: RunContext) -> None:
        self._left_open = {attempt.id: attempt for attempt in context.state.unfinished}
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self._excess: dict[str, int] = {}

    def of(self, offer: Offer) -> asyncio.Semaphore:
        """Return the semaphore to hold while an attempt is under way at the offer's node."""
        label = offer.label
        if label not in self._lanes:
            lanes = min(max(offer.lanes, 1), MOST_LANES)
            occupied = sum(attempt.label == label for attempt in self._left_open.values())
            self._lanes[label] = asyncio.Semaphore(max(lanes - occupied, 0))
            # More may be open than there are lanes: those that are delivered and not yet settled.
            self._excess[label] = max(occupied - lanes, 0)
        return self._lanes[label]

    def free(self, attempt: Attempt) -> None:
        """Free the lane of an attempt that an earlier process left open and that was taken up."""
        label = attempt.label
        if self._left_open.pop(attempt.id, None) is None or label not in self._lanes:
            return
        if self._excess[label]:
            self._excess[label] -= 1
        else:
            self._lanes[label].release()
