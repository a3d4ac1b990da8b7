"""What an endpoint counted: the tokens of a question and of its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FIELDS = {"input": "prompt_tokens", "output": "completion_tokens"}
"""The field of `usage` that has the count of each unit."""


def counted_in(document: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of an answer by unit; one that is missing or cannot be right is left out.

    A part of a token counts as a whole one.
    """
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return {}
    counts = {unit: _count(usage.get(field)) for unit, field in FIELDS.items()}
    return {unit: count for unit, count in counts.items() if count is not None}


def taken_at_most(counted: Mapping[str, int], most: Mapping[str, int]) -> dict[str, int]:
    """Return the units that are charged: what was not counted is the most that it may have been."""
    return {unit: 1 if unit == "request" else counted.get(unit, most[unit]) for unit in most}


def _count(given: Any) -> int | None:
    """Return a count as a whole number, None for what is none: text, below zero, NaN."""
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 16:
        return int(given)
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    if not math.isfinite(given) or given < 0:
        return None
    return math.ceil(given)
