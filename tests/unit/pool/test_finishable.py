"""Schemas that a model can finish: every open text, list and number gets an end."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentkit.pool.finishable import finishable, is_at_end

OPEN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "body": {"type": "string"},
        "kind": {"enum": ["x" * 200]},
        "short": {"type": "string", "maxLength": 3},
        "long": {"type": "string", "minLength": 500},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}},
        "count": {"type": "integer"},
        "huge": {"type": "integer", "minimum": 10**16},
    },
    "$defs": {"Tag": {"type": "string", "pattern": "^[a-z]+$"}},
}


def fits(value: Any) -> bool:
    return bool(Draft202012Validator(finishable(OPEN, 96)).is_valid(value))


def test_what_is_open_gets_an_end() -> None:
    """Three open texts share the 64 tokens that are not JSON, 2.5 characters for each."""
    assert fits({"title": "x" * 53})
    assert not fits({"title": "x" * 54})
    assert fits({"tags": ["a"] * 12})
    assert not fits({"tags": ["a"] * 13})
    assert not fits({"count": -(10**15) - 1})


def test_a_bound_of_its_own_stays() -> None:
    assert fits({"short": "abc"})
    assert not fits({"short": "abcd"})
    assert fits({"long": "x" * 500})
    assert fits({"kind": "x" * 200})
    assert fits({"tags": ["x" * 300]})
    assert fits({"huge": 10**17})


def test_what_is_closed_is_left_alone() -> None:
    closed = {"type": "object", "properties": {"a": {"enum": [1]}, "b": {"type": "boolean"}}}
    assert finishable(closed, 64) == closed


@pytest.mark.parametrize(
    ("value", "at_end"),
    [
        ({"title": "x" * 52, "tags": ["a"]}, False),
        ({"title": "x" * 53}, True),
        ({"tags": ["a"] * 12}, True),
        ({"more": [{"deep": "x" * 53}]}, True),
        ({"kind": "x" * 200, "long": "x" * 500}, False),
    ],
)
def test_an_answer_that_reached_its_end_is_known(value: Any, at_end: bool) -> None:
    assert is_at_end(value, OPEN, 96) is at_end


def test_a_schema_without_an_open_end_has_none_to_reach() -> None:
    assert not is_at_end("x" * 300, {"enum": ["x" * 300]}, 64)
    assert not is_at_end([1] * 300, {"type": "array", "maxItems": 300}, 64)
