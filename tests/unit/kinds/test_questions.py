"""What a model is asked: sizes before the inputs are there, and the question once they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentkit as ak
from agentkit.graph.nodes import InferNode
from agentkit.kinds import questions
from agentkit.kinds.infer import Infer
from agentkit.kinds.replies import fault_in_reply
from agentkit.kinds.sizes import Size

KIND = Infer()
TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"properties": {"a": {"type": "integer"}}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def node_of(**fields: Any) -> InferNode:
    return InferNode.model_validate({"kind": "infer", "name": "ask", "model": "m", **fields})


def reply_of(**fields: Any) -> bytes:
    return json.dumps({"role": "assistant", "content": None, **fields}).encode()


def test_a_prompt_alone_is_the_same_task_as_ever() -> None:
    """Its digest is that of tasks that were bought before there were conversations."""
    assert KIND.task(node_of(prompt="Hi"), {}).params == {
        "model": "m",
        "prompt": "Hi",
        "style": "chat",
        "max_tokens": 64,
        "temperature": 0.0,
        "stop": [],
        "schema": None,
    }


def test_a_conversation_is_asked_as_it_stands() -> None:
    messages = [
        {"role": "system", "content": "You speak {language}."},
        {"role": "user", "content": "Add {{1}} to {column}."},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "{language}"},
    ]
    node = node_of(
        messages=messages,
        inputs={"language": {"node": "l"}},
        over={"node": "rows"},
        tools=[TOOL],
        tool_choice="add",
        seed=3,
        top_p=0.5,
    )
    inputs = {"language": ak.Text.of(b"French {x}"), "over": ak.Dataset.dump([{"column": 7}])}
    params = KIND.task(node, inputs, {"column": 7}).params
    assert "prompt" not in params
    assert params["messages"] == [
        {"role": "system", "content": "You speak French {x}."},
        {"role": "user", "content": "Add {1} to 7."},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "French {x}"},
    ]
    assert params["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert params["tools"][0]["function"]["name"] == "add"
    assert (params["seed"], params["top_p"]) == (3, 0.5)


@given(st.lists(st.text(max_size=50).map(lambda text: text.replace("{", "(").replace("}", ")"))))
def test_the_most_is_no_less_than_what_is_sent(texts: list[str]) -> None:
    """A token has at least one byte, so nothing that is sent may have more bytes."""
    messages = [{"role": "user", "content": text} for text in ["first", *texts]]
    node = node_of(messages=messages, tools=[TOOL])
    task = KIND.task(node, {})
    sent = sum(len(message["content"].encode()) for message in task.params["messages"])
    assert task.load.most["input"] >= sent + len(json.dumps(task.params["tools"]))
    assert KIND.spec(node, {}).load.most["input"] >= task.load.most["input"]


@pytest.mark.parametrize("times", [1, 2, 5])
def test_what_is_named_twice_is_counted_twice(times: int) -> None:
    """Else a task could come to more than was held for it."""
    rows = [{"text": "x" * 500}, {"text": "y" * 300}]
    table = ak.Dataset.dump(rows)
    node = node_of(prompt="{text}" * times, over={"node": "rows"})
    longest = max(len(line) for line in table.read().splitlines())
    size = Size(2, longest, bound=True, exact=True)
    planned = KIND.spec(node, {"rows": (size,), "ask": (size,)}).load.most["input"]
    for row in rows:
        assert KIND.task(node, {"over": table}, row).load.most["input"] <= planned


def test_what_is_not_priced_is_not_in_the_key_of_a_price() -> None:
    one = node_of(messages=[{"role": "user", "content": "a"}], tools=[TOOL], seed=1)
    other = node_of(prompt="b")
    load = KIND.task(other, {}).load
    assert KIND.pricing_key(one, load) == KIND.pricing_key(other, load)


@pytest.mark.parametrize(
    ("reply", "choice", "why"),
    [
        (reply_of(content="Hello"), "auto", ""),
        (reply_of(content="Hello"), "none", ""),
        (reply_of(tool_calls=[CALL]), "auto", ""),
        (reply_of(tool_calls=[CALL]), "required", ""),
        (reply_of(tool_calls=[CALL]), "add", ""),
        (reply_of(content="Hello"), "required", "calls no tool"),
        (reply_of(content="Hello"), "add", "calls no tool"),
        (reply_of(tool_calls=[CALL]), "none", "tool_choice is 'none'"),
        (reply_of(), "auto", "needs content or tool_calls"),
        (reply_of(role="user", content="x"), "auto", "of the user"),
        (b"[]", "auto", "not a message"),
        (b"{", "auto", "not JSON"),
        (
            reply_of(tool_calls=[{**CALL, "function": {"name": "rm", "arguments": "{}"}}]),
            "auto",
            "'rm', which is none",
        ),
        (
            reply_of(tool_calls=[{**CALL, "function": {"name": "add", "arguments": "[1]"}}]),
            "auto",
            "not a JSON object",
        ),
    ],
)
def test_a_reply_is_paid_if_it_is_one(reply: bytes, choice: str, why: str) -> None:
    node = node_of(prompt="p", tools=[TOOL], tool_choice=choice)
    fault = fault_in_reply(reply, node)
    assert why in fault
    assert bool(fault) == bool(why)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (reply_of(content=[{"type": "text", "text": "hi"}]), "not written as"),
        (
            reply_of(tool_calls=[{"id": "c", "type": "function", "function": {"name": "add"}}]),
            "not",
        ),
        (reply_of(tool_calls=[CALL, CALL]), "the same id"),
        (reply_of(tool_calls=[{**CALL, "id": f"c{n}"} for n in range(129)]), "more than 128"),
    ],
)
def test_what_a_reply_cannot_be_read_by_is_not_paid(reply: bytes, why: str) -> None:
    """It passed, was paid, and then broke whoever read `reply.text` or `reply.tool_calls`."""
    assert why in fault_in_reply(reply, node_of(prompt="p", tools=[TOOL]))


def test_a_call_of_another_tool_than_the_chosen_one_is_refused() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    node = node_of(prompt="p", tools=[TOOL, other], tool_choice="other")
    assert "tool_choice is 'other'" in fault_in_reply(reply_of(tool_calls=[CALL]), node)


def test_the_marks_of_a_conversation_are_counted() -> None:
    one = node_of(messages=[{"role": "user", "content": "ab"}])
    two = node_of(messages=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    more = questions.bytes_as_written(two) - questions.bytes_as_written(one)
    assert more == questions.MESSAGE_TOKENS
