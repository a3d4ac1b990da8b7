"""When a second provider is asked although the first has not failed.

The rule of "The Tail at Scale" (Dean and Barroso, 2013): a call that takes much longer than usual
is made once more elsewhere, the first answer counts, and few such calls are enough.
"""

from __future__ import annotations

from collections import deque
from statistics import median

SLOW = 2.0
"""How many times the running median a call takes before a second is made."""

MOST_EXTRA = 0.06
"""Share of a run's calls that may be made on top of them."""

FEWEST = 5
"""Calls of a node that have to end before its median says anything."""


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
        """Whether one more extra call keeps within the cap."""
        return self.extra + 1 <= MOST_EXTRA * self.calls
