"""Time limits: the deadline of a whole run, what of it each node may take, one stage of a try."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property

from agentkit.market.plan import Plan

SHORTEST = 1e-3
"""Seconds a node takes, whatever its ETA says."""


class Deadline:
    """When a run has to end; told once by the wall clock, then kept by one that never jumps."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        left = None if plan.deadline is None else plan.deadline - time.time()
        self._at = None if left is None else time.monotonic() + left

    @property
    def left(self) -> float | None:
        """Seconds that are left, None without a deadline."""
        return None if self._at is None else self._at - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        left = self.left
        return left is not None and left <= 0

    def share(self, node: str) -> float | None:
        """Return the seconds one try of a node may take, None without a deadline.

        What is left, parted by the ETAs of what has to follow one another from this node on.
        """
        left = self.left
        if left is None:
            return None
        own = max(self._plan.node(node).eta, SHORTEST)
        return max(0.0, left * own / self._ahead[node])

    @cached_property
    def _ahead(self) -> dict[str, float]:
        """The longest time from the start of each node to the end of the run, as planned."""
        etas = {planned.name: max(planned.eta, SHORTEST) for planned in self._plan.nodes}
        after = dict.fromkeys(etas, 0.0)
        for node in reversed(self._plan.graph.nodes):
            ahead = etas[node.name] + after[node.name]
            for parent in self._plan.graph.parents[node.name]:
                after[parent] = max(after[parent], ahead)
        return {name: etas[name] + after[name] for name in etas}


@asynccontextmanager
async def within(seconds: float | None, late: Callable[[float], Exception]) -> AsyncIterator[None]:
    """Bound a stage; raises its own error when it takes longer."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired() or seconds is None:
            raise
        raise late(seconds) from error
