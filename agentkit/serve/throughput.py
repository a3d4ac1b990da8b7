"""How long tasks last on this node: a guess per unit, corrected by what was measured."""

from __future__ import annotations

from collections.abc import Mapping

SECONDS_PER_UNIT = {"input": 0.001, "output": 0.015, "row": 0.0005, "byte": 2e-7}
"""A first guess, for one slow core; units as in `market.task`."""

SHORTEST = 0.05
WEIGHT = 0.2
"""How much the newest measurement counts."""


class Speed:
    """A factor for each sort of work, moved by every task that was done."""

    def __init__(self, first: float = 1.0) -> None:
        self._first = first
        self._factors: dict[str, float] = {}

    def expected(self, sort: str, units: Mapping[str, int]) -> float:
        """Return the seconds that a task of so many units is expected to last."""
        return max(SHORTEST, _guess(units) * self._factors.get(sort, self._first))

    def observe(self, sort: str, units: Mapping[str, int], seconds: float) -> None:
        """Take the duration of a task in."""
        measured = seconds / max(_guess(units), 1e-3)
        before = self._factors.get(sort, self._first)
        self._factors[sort] = before + WEIGHT * (measured - before)


def _guess(units: Mapping[str, int]) -> float:
    return sum(SECONDS_PER_UNIT.get(unit, 0.0) * count for unit, count in units.items())
