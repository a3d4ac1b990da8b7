"""Schemas and values that strangers wrote: checked as they say, and never for long."""

from __future__ import annotations

import asyncio
import json
import os
import time
import warnings
from typing import Any

import psutil
import pytest

from agentkit import json_schemas
from agentkit.artifacts import Json
from agentkit.graph.nodes import InferNode
from agentkit.market.attempt import Evidence, Result
from agentkit.market.task import Load, Task
from agentkit.money import Money
from agentkit.runtime.verifiers import SchemaVerifier

TASK = Task("infer", {}, Load(expected={}, most={}))
EVIL = "^(a+)+$"
MANY_A = json.dumps("a" * 40 + "!").encode()
LADDER = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
LONG_WORK: dict[str, tuple[bytes, dict[str, Any]]] = {
    "lookaround of a stored graph": (MANY_A, {"pattern": "(?=a)" + EVIL}),
    "references that double": (
        b"1",
        {"$defs": LADDER | {"d40": {"type": "string"}}, "$ref": "#/$defs/d0"},
    ),
    "unique items": (json.dumps([{"a": n} for n in range(50_000)]).encode(), {"uniqueItems": True}),
}


@pytest.mark.parametrize(("data", "schema"), LONG_WORK.values(), ids=LONG_WORK)
async def test_work_without_end_stops_and_keeps_nobody_waiting(
    data: bytes, schema: dict[str, Any]
) -> None:
    assert json_schemas.fault_of(schema) == ""
    attempt = Result((Json.of(data),), {}, Money.parse("0.00 USDC"), Evidence())
    verifying = SchemaVerifier(schema).verify(TASK, attempt, Evidence())
    checking = asyncio.ensure_future(verifying)
    longest = 0.0
    while not checking.done():
        start = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - start)
    assert "could not be checked: it took more than 1 s" in checking.result().reason
    assert longest < 0.5
    assert json_schemas.mismatch(b'"aa"', {"pattern": EVIL}) == ""  # another child does the next


def test_a_pattern_is_matched_in_linear_time() -> None:
    json_schemas.mismatch(b'"a"', {"pattern": "a"})  # starts the child
    for schema in ({"pattern": EVIL}, {"patternProperties": {EVIL: False}}):
        value = MANY_A if "pattern" in schema else b'{"%s!": 1}' % (b"a" * 40)
        start = time.process_time()
        said = json_schemas.mismatch(value, schema)
        assert time.process_time() - start < 0.5
        assert ("does not match" in said) == ("pattern" in schema)


@pytest.mark.parametrize(
    ("value", "schema", "fits"),
    [
        ({"ab": 1}, {"patternProperties": {"^a": {"type": "integer"}}}, True),
        ({"ab": "x"}, {"patternProperties": {"^a": {"type": "integer"}}}, False),
        ({"ab": 1}, {"patternProperties": {"^a": {}}, "additionalProperties": False}, True),
        ({"b": 1}, {"patternProperties": {"^a": {}}, "additionalProperties": False}, False),
        ({"b": 1}, {"patternProperties": {"^a": {}}, "additionalProperties": {"type": "null"}}, 0),
        ("\u00e9", {"pattern": r"^\u00e9$"}, True),
        ("\\u00e9", {"pattern": r"^\\u00e9$"}, True),
        ("2024-01-02", {"pattern": r"^\d{4}-\d\d-\d\d$"}, True),
        ([1, 1], {"uniqueItems": True}, False),
        ({"a": {"a": {}}}, {"properties": {"a": {"$ref": "#"}}, "additionalProperties": False}, 1),
        ({"a": {"b": {}}}, {"properties": {"a": {"$ref": "#"}}, "additionalProperties": False}, 0),
        (None, {"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        (10**4000, {"multipleOf": 0.1}, False),
    ],
)
def test_what_fits_is_told_from_what_does_not(value: Any, schema: Any, fits: bool) -> None:
    assert json_schemas.fault_of(schema) == ""
    assert (json_schemas.mismatch(json.dumps(value).encode(), schema) == "") == bool(fits)


def infer(schema: Any) -> InferNode:
    return InferNode(kind="infer", name="ask", model="smollm2-135m", prompt="Hi", output=schema)


def test_the_child_has_no_secret_and_a_fork_does_not_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    json_schemas._CHECKER.close()
    monkeypatch.setenv("AGENTKIT_PASSPHRASE", "opensesame")
    assert json_schemas.mismatch(b"[1, 2]", {"uniqueItems": True}) == ""
    process = json_schemas._CHECKER._process
    assert process is not None
    assert "opensesame" not in psutil.Process(process.pid).environ().values()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        pid = os.fork()  # of which Python 3.12 warns: threads do not come along
    if pid == 0:
        fits = json_schemas.mismatch(b"[2, 2]", {"uniqueItems": True})
        other = json_schemas._CHECKER._process
        os._exit(0 if fits and other and other.pid != process.pid else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert json_schemas.mismatch(b"[3]", {"uniqueItems": True}) == ""
    assert json_schemas._CHECKER._process is process
