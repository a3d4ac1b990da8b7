"""Schemas and values that strangers wrote: checked as they say, and never for long."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit import json_schemas
from agentkit.errors import WrongInput
from agentkit.graph.nodes import InferNode
from agentkit.planner.estimate import spec_of


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "strange"}, "strange"),
        ({"pattern": "("}, "not a 'regex'"),
        ({"patternProperties": {"[": {}}}, "not a 'regex'"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"enum": ["x" * 70_000]}, "longer than 64 KiB"),
        ({"allOf": [{}] * 2000}, "more than 1000 schemas"),
        ({"const": float("nan")}, "NaN"),
    ],
)
def test_what_is_no_schema_is_told_in_a_line(schema: Any, why: str) -> None:
    said = json_schemas.fault_of(schema)
    assert why in said
    assert "\n" not in said
    assert len(said) < 600


def test_a_deep_or_endless_answer_is_told_in_a_line() -> None:
    schema = {"type": "object"}
    for data in (b"[" * 5000, b'{"a":' * 5000, b"1" * 5000, b'"' + b"x" * (17 << 20) + b'"'):
        said = json_schemas.mismatch(data, schema)
        assert 0 < len(said) < 600


def infer(schema: Any) -> InferNode:
    return InferNode(kind="infer", name="ask", model="smollm2-135m", prompt="Hi", output=schema)


@pytest.mark.parametrize("pattern", [r"(?=a)b", r"(?<!a)b", r"(a)\1"])
def test_a_plan_names_the_pattern_that_has_no_linear_match(pattern: str) -> None:
    with pytest.raises(WrongInput, match="linear time") as refused:
        spec_of(infer({"items": {"pattern": pattern}}), {})
    assert repr(pattern) in str(refused.value)
    assert infer({"pattern": pattern}).name  # a graph that was stored still reads
    spec_of(infer({"const": {"pattern": pattern}}), {})  # no pattern but a value


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": ["x", *range(1000)]}, "more than 7 types"),  # compared in pairs
        ({"allOf": [{}], "$ref": "#/allOf/" + "1" * 5000}, "leads nowhere"),
    ],
)
def test_what_costs_much_to_look_through_is_refused_first(schema: Any, why: str) -> None:
    assert why in json_schemas.fault_of(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"required": ["a"], "properties": {"a": {"$ref": "#/required"}}},
        {"title": "x", "properties": {"a": {"$ref": "#/title"}}},
        {"properties": {"type": {"$ref": "#/properties"}, "a": {"$ref": "#/properties"}}},
    ],
)
def test_a_reference_to_what_is_no_schema_is_an_answer_not_an_error(schema: Any) -> None:
    assert "cannot be applied" in json_schemas.mismatch(b'{"a": 1, "type": 2}', schema)
