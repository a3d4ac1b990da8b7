"""LangChain's values as plain JSON and back: a closed table, whatever was read."""

import json
import uuid
from collections import deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from support.drawn_cases import cases

from agentkit.errors import AgentKitError, StateCorrupt, WrongInput
from agentkit.tools.checkpointer import KINDS
from agentkit.tools.serialization import Values

texts = st.text(max_size=5)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | texts
    | st.just("~")
    | st.binary(max_size=5)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.timezones(), allow_imaginary=False)
    | st.timedeltas()
)
keys = texts | st.just("~") | st.integers() | st.tuples(texts, st.integers())
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(texts, max_size=3)
        | st.frozensets(st.integers(), max_size=3)
        | st.lists(inner, max_size=3).map(lambda parts: deque(parts, 9))
    ),
    max_leaves=8,
)


@settings(max_examples=cases(60))
@given(values)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    table = Values()
    text = json.dumps(table.encode(value), allow_nan=False)
    back = table.decode(json.loads(text))
    assert back == value
    assert type(back) is type(value)
    assert table.loads_typed(table.dumps_typed(value)) == value


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage("hi", id="1", name="ann"),
        HumanMessage([{"type": "text", "text": "hi"}, {"type": "image", "base64": "AA=="}]),
        SystemMessage("be brief"),
        ChatMessage("x", role="judge"),
        RemoveMessage(id="1"),
        ToolMessage("42", tool_call_id="c1", artifact={"rows": (1, 2)}, status="error"),
        AIMessage(
            "",
            tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            response_metadata={"agentkit": {"paid": "0.01 USDC"}},
        ),
        AIMessageChunk("part"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_come_back_equal(message: BaseMessage) -> None:
    table = Values()
    back = table.decode(json.loads(json.dumps(table.encode(message))))
    assert type(back) is type(message)
    assert back == message


def test_other_things_of_langchain_and_python_come_back() -> None:
    table = Values()
    for value in (
        Document("text", metadata={"page": 1, "at": date(2026, 1, 2)}),
        Path("a/b"),
        {"when": [datetime(2026, 1, 2, tzinfo=UTC), time(3), timedelta(days=-1)]},
        [Decimal("1.10"), uuid.UUID(int=7), float("-inf")],
    ):
        assert table.decode(json.loads(json.dumps(table.encode(value)))) == value
    assert table.encode(ValueError("no")) == "ValueError('no')"


def test_what_holds_itself_is_one_clear_error() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(WrongInput, match="holds itself"):
        Values().encode({"a": value})


class Colour(Enum):
    RED = 1


class Mine(HumanMessage):
    """Somebody's own message."""


@pytest.mark.parametrize("value", [object(), Colour.RED, Mine("x"), range(3), int])
def test_a_class_that_nobody_named_is_not_written(value: Any) -> None:
    with pytest.raises(WrongInput, match="cannot be stored as plain JSON"):
        Values().encode({"deep": [value]})
    if isinstance(value, Colour):
        table = Values(allow=[Colour])
        assert table.decode(table.encode(value)) is Colour.RED


@pytest.mark.parametrize(
    "plain",
    [
        {"~": "os:system", "v": "true"},
        {"~": "builtins:eval", "v": "1"},
        {"~": "message", "v": {"type": "constructor", "data": {}}},
        {"~": "message", "v": {"lc": 1, "type": "constructor", "id": ["os", "system"]}},
        {"~": "message", "v": 3},
        {"~": "uuid", "v": "no"},
        {"~": "tuple", "v": 3},
        {"~": "bytes"},
        {"~": ["list"]},
        {"~": "dict", "v": [[{"~": "dict", "v": []}, 1]]},
        {"~": "dict", "v": [1]},
        {"~": "decimal", "v": "no"},
        {"~": "set", "v": [[]]},
        {"~": "interrupt", "v": []},
        {"~": "send", "v": ["node"]},
        {"~": "command", "v": None},
    ],
    ids=lambda plain: json.dumps(plain)[:40],
)
def test_what_cannot_be_read_is_one_clear_error_and_revives_nothing(plain: Any) -> None:
    with pytest.raises(StateCorrupt) as raised:
        Values(KINDS).decode([plain])
    assert isinstance(raised.value, AgentKitError)
    with pytest.raises(StateCorrupt):
        Values().loads_typed(("pickle", b"cos\nsystem\n(S'true'\ntR."))


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 3, 28, 12, tzinfo=BERLIN),  # the day before the clocks change
        datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
        datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
        datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001  # of no zone, and yet the second
        time(2, 30, tzinfo=BERLIN),
    ],
)
def test_a_moment_keeps_its_zone_and_which_of_two_equal_hours_it_is(moment: Any) -> None:
    values = Values()
    again = values.loads_typed(values.dumps_typed(moment))
    assert again == moment
    assert (again.tzinfo, again.fold) == (moment.tzinfo, moment.fold)
    if isinstance(moment, datetime):
        assert (again + timedelta(days=1)).isoformat() == (moment + timedelta(days=1)).isoformat()


def test_moments_that_were_stored_without_a_zone_are_read_as_before() -> None:
    assert Values().decode({"~": "datetime", "v": "2026-01-02T00:00:00+00:00"}) == datetime(
        2026, 1, 2, tzinfo=UTC
    )


@pytest.mark.parametrize("zone", ["Nowhere/Else", "../../etc/passwd", "/etc/passwd", 7, ["x"]])
def test_a_zone_that_is_none_is_refused(zone: Any) -> None:
    with pytest.raises(StateCorrupt):
        Values().decode({"~": "datetime", "v": ["2026-01-02T00:00:00", zone, 0]})
