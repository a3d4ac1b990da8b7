"""How many cases a property test draws, in every profile of hypothesis (`tests/conftest.py`)."""

from __future__ import annotations

from hypothesis import settings

USUAL = 100
"""Cases of a test that names no number, in a profile that names none either."""


def cases(number: int) -> int:
    """Return how many cases to draw in this profile, where `number` are drawn by `make test`.

    `@settings(max_examples=60)` would draw 60 also for the unit tier, whose profile `quick` draws
    a fifth; `@settings(max_examples=cases(60))` draws 12 there.
    """
    return max(1, number * settings().max_examples // USUAL)
