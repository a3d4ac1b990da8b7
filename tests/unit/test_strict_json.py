"""Reader and writer have the same limits, so that nothing can be written and not read."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.strict_json import MAX_DEPTH, BadJson, dumps, loads

Values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(Values)
def test_what_is_written_is_read_back_the_same(value: Any) -> None:
    try:
        written = dumps(value)
    except BadJson:
        return
    read = loads(written)
    assert read == value
    assert json.loads(written) == value, "and others read it too"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_the_depth_is_the_same_both_ways() -> None:
    deepest = nested(MAX_DEPTH)
    assert loads(dumps(deepest)) == deepest
    with pytest.raises(BadJson, match="deeper"):
        dumps(nested(MAX_DEPTH + 1))
    with pytest.raises(BadJson, match="deeper"):
        loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    with pytest.raises(BadJson, match="deeper"):
        dumps(nested(100_000))


def test_brackets_in_a_text_are_no_depth() -> None:
    assert loads(dumps("[" * 1000 + '\\"{')) == "[" * 1000 + '\\"{'


def test_what_others_could_not_read_is_not_written() -> None:
    for value in (math.nan, math.inf, "\ud800", {"a": "\udfff"}, {"\ud800": 1}, 10**5000, object()):
        with pytest.raises(BadJson):
            dumps(value)


def test_what_others_could_not_write_is_not_read() -> None:
    texts = ["NaN", "-Infinity", "1e999", '"\\ud800"', "9" * 5000, '{"a":1,"a":2}', "", "[1", "1 2"]
    for text in texts:
        with pytest.raises(BadJson):
            loads(text)
    with pytest.raises(BadJson, match="UTF-8"):
        loads(b"\xff")


def test_a_byte_order_mark_is_passed_over() -> None:
    assert loads(b"\xef\xbb\xbf[1]") == [1]
    assert loads("\ufeff[1]") == [1]


def test_a_twin_among_many_keys_is_found_in_linear_time() -> None:
    """Counting each key anew took 20 s for half a megabyte, and hours for what we read at most."""
    keys = ",".join(f'"{number}":1' for number in range(100_000))
    started = time.process_time()
    with pytest.raises(BadJson, match="'99999' stands in one object twice"):
        loads(f'{{{keys},"99999":2}}')
    assert time.process_time() - started < 10
