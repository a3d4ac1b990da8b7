"""The budget of a tool: the most that all its calls may cost together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agentkit.errors import OverBudget
from agentkit.market.plan import Plan
from agentkit.money import Money
from agentkit.runtime.result import RunResult


class SpendingLimit:
    """A budget that calls in any threads share."""

    def __init__(self, budget: str) -> None:
        self._budget = budget
        self._committed = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[SpendingLimit], tuple[str]]:
        """Have copies and pickles start anew: the same budget, and nothing spent of it."""
        return SpendingLimit, (self._budget,)

    @contextmanager
    def holding(self, plan: Plan) -> Iterator[list[RunResult]]:
        """Reserve the most that a plan may cost, while it runs; then count what it has cost.

        The caller appends the run's result to the list that it gets.  A run without a result keeps
        its reservation, because it may be resumed and paid later.  Raises OverBudget before
        anything is spent.
        """
        limit = Money.parse(self._budget).bind(plan.at_most.asset)
        with self._lock:
            committed = self._committed + plan.at_most.units
            if committed > limit.units:
                raise OverBudget("budget", Money(committed, limit.asset), limit)
            self._committed = committed

        results: list[RunResult] = []
        try:
            yield results
        finally:
            for result in results:
                spent = sum(receipt.amount.units for receipt in result.receipts)
                with self._lock:
                    self._committed += spent - plan.at_most.units
