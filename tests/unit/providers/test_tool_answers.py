"""Answers of chat endpoints that call tools: what is read out of them, whole or in pieces."""

import json
from typing import Any

import pytest

from agentkit.artifacts import Reply, Text
from agentkit.kinds.replies import MAX_CALLS
from agentkit.providers.http import Answer
from agentkit.providers.openai.answer import answer_in
from agentkit.providers.openai.documents import document_in

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def document(*, finish_reason: str = "tool_calls", **message: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, **message}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}


def test_calls_become_a_reply() -> None:
    said = answer_in(document(tool_calls=[CALL]), with_tools=True)
    reply = said.artifact()
    assert isinstance(reply, Reply)
    (call,) = reply.tool_calls
    assert (call.id, call.name, call.arguments) == ("c1", "add", {"a": 1})
    assert said.finish_reason == "tool_calls"


def test_with_tools_a_text_is_a_reply_too() -> None:
    reply = answer_in(document(content="Hello", finish_reason="stop"), with_tools=True).artifact()
    assert isinstance(reply, Reply)
    assert (reply.text, reply.tool_calls) == ("Hello", ())


def test_without_tools_a_text_is_a_text() -> None:
    text = answer_in(document(content="Hello", tool_calls=[CALL])).artifact()
    assert text == Text.of(b"Hello")


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ({"function": {"name": "add", "arguments": {"a": 1}}}, {"a": 1}),  # some send an object
        ({"function": {"name": "add", "arguments": ""}}, {}),
        ({"function": {"name": "add"}}, {}),
        ({"id": "", "function": {"name": "add", "arguments": None}}, {}),
    ],
)
def test_what_endpoints_leave_out_is_filled_in(call: dict[str, Any], arguments: Any) -> None:
    reply = answer_in(document(tool_calls=[call]), with_tools=True).artifact()
    assert isinstance(reply, Reply)
    (made,) = reply.tool_calls
    assert made.arguments == arguments
    assert made.id


@pytest.mark.parametrize(
    "calls",
    [
        "add",
        [5],
        [None],
        [{}],
        [{"function": None}],
        [{"function": {"name": "a b", "arguments": "{}"}}],
        [{"function": {"name": "add", "arguments": "[1]"}}],
        [{"function": {"name": "add", "arguments": '{"a": '}}],
        [{"function": {"name": "add", "arguments": "{}"}, "id": "x" * 201}],
        [CALL] * (MAX_CALLS + 1),
    ],
)
def test_calls_that_cannot_be_read_are_refused_in_words(calls: Any) -> None:
    with pytest.raises(ValueError, match="tool"):
        answer_in(document(tool_calls=calls), with_tools=True)


def test_a_stream_of_calls_is_the_calls_that_its_events_make_up() -> None:
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "add", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "stop"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    ]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}]
    lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    body = f"{lines}data: [DONE]\n\n".encode()
    whole = document_in(Answer(200, {"content-type": "text/event-stream"}, body))
    reply = answer_in(whole, with_tools=True).artifact()
    assert isinstance(reply, Reply)
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [
        ("c1", "add", {"a": 1}),
        ("c2", "stop", {}),
    ]


def test_a_word_that_cannot_be_written_is_mended() -> None:
    """JSON can bring half of a surrogate pair along, and no journal takes it."""
    said = answer_in(document(content="Hello", finish_reason="st\ud83dp"))
    assert said.finish_reason == "st?p"


def test_calls_in_a_stream_without_an_index_are_told_apart_by_their_ids() -> None:
    calls = [
        {"id": "c1", "function": {"name": "add", "arguments": '{"a"'}},
        {"function": {"arguments": ": 1}"}},
        {"id": "c2", "function": {"name": "stop", "arguments": "{}"}},
    ]
    chunks: list[Any] = [{"choices": [{"delta": {"tool_calls": [call]}}]} for call in calls]
    chunks += [{"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode()
    whole = document_in(Answer(200, {"content-type": "text/event-stream"}, body))
    reply = answer_in(whole, with_tools=True).artifact()
    assert isinstance(reply, Reply)
    assert [(call.id, call.arguments) for call in reply.tool_calls] == [
        ("c1", {"a": 1}),
        ("c2", {}),
    ]
