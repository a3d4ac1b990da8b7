"""The limit over the life of a tool: what its calls may come to together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agentkit.errors import OverBudget
from agentkit.market.plan import Plan
from agentkit.money import Money
from agentkit.runtime.result import RunResult


class Purse:
    """A budget that calls share, on whatever threads they are."""

    def __init__(self, budget: str) -> None:
        self._budget = budget
        self._committed = 0
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, plan: Plan) -> Iterator[list[RunResult]]:
        """Keep a call's at most free under the budget; afterwards what it came to.

        The call puts its result into the list.  Raises OverBudget before anything is spent.
        """
        limit = Money.parse(self._budget).bind(plan.at_most.asset)
        with self._lock:
            if self._committed + plan.at_most.units > limit.units:
                needed = Money(self._committed + plan.at_most.units, limit.asset)
                raise OverBudget("budget", needed, limit)
            self._committed += plan.at_most.units
        outcome: list[RunResult] = []
        try:
            yield outcome
        finally:
            # A run that did not end keeps its at most committed: it may still be resumed.
            for result in outcome:
                came_to = sum(receipt.amount.units for receipt in result.receipts)
                with self._lock:
                    self._committed += came_to - plan.at_most.units
