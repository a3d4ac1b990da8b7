"""Conversations and tools in a graph: what the builder takes, and what stands in the document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import agentkit as ak
from agentkit.errors import UnknownInput, WrongInput
from agentkit.graph import codec
from agentkit.graph.messages import ChatMessage
from agentkit.graph.nodes import InferNode


def weather(city: str, days: int = 1) -> str:
    """Return the weather in a city."""
    return f"{city}: {days} days of rain"


class Order(BaseModel):
    """Order something."""

    item: str
    note: str | None = None


def node_of(**fields: Any) -> InferNode:
    graph = ak.JobGraph("g")
    graph.infer("ask", model="m", **fields)
    node = graph.freeze().nodes[0]
    assert isinstance(node, InferNode)
    return node


def test_a_conversation_comes_back_from_its_file(tmp_path: Path) -> None:
    graph = ak.JobGraph("talk")
    name = graph.infer("name", model="m", prompt="A name")
    conversation = [
        ak.system("Be brief."),
        ak.user("Greet {name}."),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
            ],
        },
        ak.tool_result("c1", "rain"),
    ]
    graph.infer(
        "greet",
        model="m",
        messages=conversation,
        inputs={"name": name},
        tools=[weather, Order],
        tool_choice="weather",
        seed=7,
        top_p=0.5,
    )
    for suffix in ("toml", "json"):
        graph.save(tmp_path / f"talk.{suffix}")
        loaded = codec.load(tmp_path / f"talk.{suffix}")
        assert loaded == graph.freeze()
        assert loaded.digest == graph.freeze().digest


def test_a_tool_is_described_for_the_model() -> None:
    function, model = node_of(prompt="p", tools=[weather, Order]).tools
    assert function.function.name == "weather"
    assert function.function.description == "Return the weather in a city."
    assert function.function.parameters["required"] == ["city"]
    assert model.function.name == "Order"
    assert "default" not in model.function.parameters["properties"]["note"]  # TOML has no null


def test_with_tools_the_answer_is_a_reply() -> None:
    assert node_of(prompt="p", tools=[weather]).outputs == (ak.Reply,)
    assert node_of(messages=[ak.user("p")]).outputs == (ak.Text,)


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert ChatMessage.model_validate({"role": "user", "content": parts}).content == "one two"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "either prompt= or messages="),
        ({"prompt": "p", "messages": [ak.user("u")]}, "either prompt= or messages="),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": 5}]}, "content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        ({"messages": [{"role": "assistant"}]}, "needs content or tool_calls"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            '"image_url" is not text',
        ),
        ({"messages": [ak.user("u")], "style": "complete"}, "for chats"),
        ({"messages": [ak.user("u")], "output": ak.Embedding}, "for chats"),
        ({"prompt": "p", "tools": [weather], "output": int}, "exclude one another"),
        ({"prompt": "p", "tools": [weather, weather]}, "the same name"),
        ({"prompt": "p", "tools": [weather], "tool_choice": "wether"}, "tool_choice="),
        ({"prompt": "p", "tool_choice": "required"}, "needs tools="),
        ({"prompt": "p", "tools": []}, "an empty list of tools"),
        ({"prompt": "p", "tools": [5]}, "is not a tool"),
        ({"prompt": "p", "tools": [{"type": "web_search"}]}, "a provider runs itself"),
        ({"messages": [ak.user("a\ud83d")]}, "half of a surrogate pair"),
        ({"prompt": "p", "tools": [{"type": "function", "function": {"name": "a b"}}]}, "name"),
        (
            {
                "prompt": "p",
                "tools": [{"function": {"name": "f", "parameters": {"type": "strange"}}}],
            },
            "tool 'f' of node 'ask' are not a JSON schema",
        ),
        ({"prompt": "p", "seed": -1}, "seed"),
        ({"prompt": "p", "top_p": 0}, "top_p"),
        ({"messages": [ak.user("{a b}")]}, "not a plain name"),
        ({"messages": [ak.user("{a")]}, "unbalanced braces"),
        ({"prompt": "p", "tols": [weather]}, "takes no 'tols'"),
    ],
)
def test_a_slip_is_told(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(WrongInput, match=why):
        node_of(**fields)


def test_a_name_that_nothing_fills_in_is_told() -> None:
    with pytest.raises(UnknownInput, match=r"\{city\}"):
        node_of(messages=[ak.system("s"), ak.user("{city}")])


def test_a_slip_in_a_message_is_an_error_of_ours() -> None:
    with pytest.raises(WrongInput, match="content of ChatMessage"):
        ak.user(5)  # type: ignore[arg-type]
