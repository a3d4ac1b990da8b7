"""Requests of OpenAI's API as clients really send them, and what a node does not do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentkit.errors import ProtocolBroken, Refused
from agentkit.pool.declared import check_declared
from agentkit.pool.services import params_of
from agentkit.providers import wire
from agentkit.serve.openai_wire import ChatRequest

TOOL = {
    "type": "function",
    "function": {"name": "add", "description": None, "parameters": None, "strict": True},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def request(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return wire.read(ChatRequest, json.dumps(body).encode(), "this request")


def test_a_conversation_is_taken_as_clients_send_it() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Add "}, {"type": "text", "text": "1"}],
        },
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "assistant", "content": "1", "tool_calls": None, "annotations": []},
    ]
    params = request(messages=messages, tools=[TOOL], seed=1, top_p=0.5, user="u", n=1).params()
    assert [message["role"] for message in params["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert params["messages"][1]["content"] == "Add 1"
    assert params["tools"][0]["function"] == {"name": "add", "description": "", "parameters": {}}
    assert params["tool_choice"] == "auto"
    assert (params["seed"], params["top_p"]) == (1, 0.5)
    params_of("infer", params)  # the pool takes it


def test_a_tool_may_be_chosen_by_name() -> None:
    choice = {"type": "function", "function": {"name": "add"}}
    params = request(tools=[TOOL], tool_choice=choice).params()
    assert params["tool_choice"] == choice
    params_of("infer", params)


def test_an_object_of_any_form_may_be_asked_for() -> None:
    assert request(response_format={"type": "json_object"}).params()["schema"] == {"type": "object"}


def test_everything_that_is_read_is_paid_for() -> None:
    """Else a stranger has a node read long tools for the price of a short prompt."""
    long = {"name": "add", "description": "x" * 1000, "parameters": {"title": "y" * 1000}}
    plain = request().input_bytes
    assert request(tools=[{"type": "function", "function": long}]).input_bytes > plain + 2000
    call = {**CALL, "function": {"name": "add", "arguments": json.dumps({"a": "z" * 1000})}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}]
    assert request(messages=messages).input_bytes > plain + 1000


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"n": 2}, "n has to be 1"),
        ({"stream": True}, "does not stream"),
    ],
)
def test_what_a_node_does_not_do_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        request(**fields).params()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "is not text"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [{"type": "retrieval"}]}, "tools"),
        ({"top_p": 2}, "top_p"),
    ],
)
def test_what_is_no_request_is_told(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ProtocolBroken, match=why):
        request(**fields)


def test_no_schema_is_looked_through_while_a_request_is_read() -> None:
    """That takes time, and whoever sends one has neither paid nor shown a key by then."""
    bad = {"name": "add", "parameters": {"type": "strange"}}
    params = request(tools=[{"type": "function", "function": bad}]).params()
    asked = params_of("infer", params)
    with pytest.raises(Refused, match="not a JSON schema"):
        check_declared(asked, {}, {"input": 10_000, "output": 10_000})
