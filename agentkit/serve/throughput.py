"""Estimates how long tasks take on a node: a first guess per unit, corrected by measurements."""

from __future__ import annotations

from collections.abc import Mapping

SECONDS_PER_UNIT = {"input": 0.001, "output": 0.015, "row": 0.0005, "byte": 2e-7}
"""The first guess, for one slow core; units as in `market.task`."""

SHORTEST = 0.05
"""The shortest estimate, in seconds."""

WEIGHT = 0.2
"""The weight of the newest measurement in the moving average."""


class Throughput:
    """For each service the ratio of real to guessed seconds, as a moving average."""

    def __init__(self, first: float = 1.0) -> None:
        """`first` is the ratio before anything was measured."""
        self._first = first
        self._ratios: dict[str, float] = {}

    def expected(self, service: str, units: Mapping[str, int]) -> float:
        """Return how many seconds a task of so many units is expected to take."""
        return max(SHORTEST, _guess(units) * self._ratios.get(service, self._first))

    def observe(self, service: str, units: Mapping[str, int], seconds: float) -> None:
        """Take the duration of a task into the average."""
        measured = seconds / max(_guess(units), 1e-3)
        average = self._ratios.get(service, self._first)
        self._ratios[service] = average + WEIGHT * (measured - average)


def _guess(units: Mapping[str, int]) -> float:
    """Return the seconds of so many units at SECONDS_PER_UNIT."""
    return sum(SECONDS_PER_UNIT.get(unit, 0.0) * count for unit, count in units.items())
