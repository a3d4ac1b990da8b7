"""Schemas that a model can finish: what they leave open gets an end before its tokens do.

A small model goes on within a text, a list or a number for as long as its grammar lets it, and an
answer that is cut there is no JSON.  An answer that reached such an end says so (`is_at_end`).
"""

from __future__ import annotations

from typing import Any

from agentkit.json_schemas import rewritten

_SHORTEST_TEXT = 16
"""Every text may have so many characters, however few tokens the answer may have."""

_CHARACTERS_PER_TOKEN = 2.5
"""Less than the four that a token of text usually has; odd words may still not find room."""

_TOKENS_BESIDE = 8
"""What the JSON around each text takes."""

_SHORTEST_LIST = 8
_TOKENS_PER_ITEM = 8

_LARGEST_NUMBER = 10**15

_TEXT_BOUNDS = ("maxLength", "pattern", "format")
_NUMBER_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def finishable(schema: dict[str, Any], max_tokens: int) -> dict[str, Any]:
    """Return a schema with a bound for every text, list and number that has none of its own."""
    longest = _longest_text(schema, max_tokens)

    def bound(subschema: dict[str, Any]) -> dict[str, Any]:
        if _is_open(subschema, "string", _TEXT_BOUNDS):
            return {**subschema, "maxLength": max(longest, subschema.get("minLength", 0))}
        if _is_open(subschema, "array", ("maxItems",)):
            most = max(_most_items(max_tokens), subschema.get("minItems", 0))
            return {**subschema, "maxItems": most}
        if any(_is_open(subschema, kind, _NUMBER_BOUNDS) for kind in ("integer", "number")):
            return {**subschema, "minimum": -_LARGEST_NUMBER, "maximum": _LARGEST_NUMBER}
        return subschema

    return rewritten(schema, bound)


def is_at_end(value: Any, schema: dict[str, Any], max_tokens: int) -> bool:
    """Return whether a text or a list in an answer is as long as `finishable` lets one be.

    One with a bound of its own is taken for such a one only if it happens to be exactly as long.
    """
    longest = _longest_text(schema, max_tokens) if _count(schema, "string", _TEXT_BOUNDS) else None
    most = _most_items(max_tokens) if _count(schema, "array", ("maxItems",)) else None
    waiting = [value]
    while waiting:
        part = waiting.pop()
        bound = longest if isinstance(part, str) else most
        if isinstance(part, str | list) and bound is not None and len(part) == bound:
            return True
        if isinstance(part, list | dict):
            waiting += part if isinstance(part, list) else part.values()
    return False


def _longest_text(schema: dict[str, Any], max_tokens: int) -> int:
    """Return the characters that each open text may have: they share the tokens."""
    texts = max(1, _count(schema, "string", _TEXT_BOUNDS))
    left = max_tokens - _TOKENS_BESIDE * (texts + 1)
    return max(_SHORTEST_TEXT, int(_CHARACTERS_PER_TOKEN * left / texts))


def _count(schema: dict[str, Any], kind: str, bounds: tuple[str, ...]) -> int:
    """Return how many schemas of a type in a schema are open."""
    found = 0

    def count(subschema: dict[str, Any]) -> dict[str, Any]:
        nonlocal found
        found += _is_open(subschema, kind, bounds)
        return subschema

    rewritten(schema, count)
    return found


def _most_items(max_tokens: int) -> int:
    return max(_SHORTEST_LIST, max_tokens // _TOKENS_PER_ITEM)


def _is_open(subschema: dict[str, Any], kind: str, bounds: tuple[str, ...]) -> bool:
    """Return whether a schema of a type leaves it open how long a value may be."""
    closed = ("enum", "const", *bounds)
    return subschema.get("type") == kind and not any(key in subschema for key in closed)
