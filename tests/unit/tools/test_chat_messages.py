"""LangChain's messages become a graph's, and what a graph cannot hold is refused."""

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from agentkit.artifacts import Reply, Text
from agentkit.errors import WrongInput
from agentkit.tools.chat_messages import to_ai_message, to_chat_messages

CALL = {"name": "weather", "args": {"city": "Rome", "days": 2}, "id": "call-1"}


def sent(*messages: BaseMessage) -> list[dict[str, Any]]:
    """Return messages as a provider gets them, names in braces filled in."""
    return [message.on_wire(message.content.format()) for message in to_chat_messages(messages)]


def test_every_speaker_has_its_role() -> None:
    assert sent(
        SystemMessage("Be brief."),
        HumanMessage("Hi", name="Ada"),
        AIMessage("Hello"),
        AIMessageChunk("Again"),
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "Ada"},
        {"role": "assistant", "content": "Hello"},
        {"role": "assistant", "content": "Again"},
    ]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("developer", "system"),
        ("system", "system"),
        ("human", "user"),
        ("user", "user"),
        ("ai", "assistant"),
        ("assistant", "assistant"),
    ],
)
def test_a_message_of_any_role_has_the_one_that_endpoints_know(name: str, role: str) -> None:
    assert sent(ChatMessage("Hi", role=name)) == [{"role": role, "content": "Hi"}]


def test_braces_stand_for_themselves() -> None:
    text = 'Answer {"city": "{name}"} {} {{'
    assert to_chat_messages([HumanMessage(text)])[0].content != text
    assert sent(HumanMessage(text))[0]["content"] == text


def test_calls_of_tools_and_their_answers_are_in_the_form_of_openai() -> None:
    called, answer = sent(
        AIMessage("", tool_calls=[CALL]),
        ToolMessage("22", tool_call_id="call-1", name="weather"),
    )
    function = {"name": "weather", "arguments": '{"city": "Rome", "days": 2}'}
    assert called == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call-1", "type": "function", "function": function}],
    }
    assert answer == {"role": "tool", "content": "22", "tool_call_id": "call-1"}


def test_text_parts_are_joined() -> None:
    parts: list[Any] = [
        "one ",
        {"type": "text", "text": "two ", "cache_control": {"type": "ephemeral"}},
        {"type": "text-plain", "text": "three", "mime_type": "text/plain"},
    ]
    assert sent(HumanMessage(parts), SystemMessage(parts), ToolMessage(parts, tool_call_id="1"))
    for message in sent(HumanMessage(parts), ToolMessage(parts, tool_call_id="1")):
        assert message["content"] == "one two three"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_use", "id": "call-1", "name": "weather", "input": {}},
        {"type": "tool_call", "id": "call-1", "name": "weather", "args": {}},
        {"type": "function_call", "id": "fc-1", "call_id": "call-1", "name": "weather"},
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "thinking", "thinking": "hm", "signature": "s"},
    ],
)
def test_parts_of_a_model_that_repeat_its_calls_or_are_thoughts_are_left_out(part: Any) -> None:
    message = AIMessage([{"type": "text", "text": "Let me look."}, part], tool_calls=[CALL])
    (called,) = sent(message)
    assert called["content"] == "Let me look."
    assert [call["id"] for call in called["tool_calls"]] == ["call-1"]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (HumanMessage([{"type": "image_url", "image_url": {"url": "data:"}}]), "'image_url'"),
        (HumanMessage([{"type": "image", "url": "https://x.example"}]), "'image'"),
        (HumanMessage([{"type": "audio", "base64": "AA"}]), "'audio'"),
        (HumanMessage([{"type": "file", "base64": "AA"}]), "'file'"),
        (HumanMessage([{"type": "text-plain", "url": "https://x.example"}]), "'text-plain'"),
        (HumanMessage([{"type": "reasoning", "reasoning": "hm"}]), "'reasoning'"),
        (HumanMessage([{"text": "no type"}]), "'None'"),
        (ToolMessage([{"type": "image", "base64": "AA"}], tool_call_id="1"), "of the tool"),
        (AIMessage([{"type": "tool_use", "id": "2", "name": "w", "input": {}}]), "'tool_use'"),
        (HumanMessage("a\ud83d"), "half of a character"),
        (HumanMessage("a", name="\ud83d"), "half of a character"),
        (AIMessage("", tool_calls=[{**CALL, "args": {"city": "\ud83d"}}]), "surrogate"),
        (AIMessage("", tool_calls=[{**CALL, "args": {"at": float("nan")}}]), "NaN"),
        (AIMessage("", tool_calls=[{**CALL, "id": None}]), "no id"),
        (
            AIMessage(
                "", invalid_tool_calls=[{"name": "w", "args": "{", "id": "1", "error": None}]
            ),
            "not JSON",
        ),
        (AIMessage(""), "neither text nor calls"),
        (FunctionMessage("22", name="weather"), "FunctionMessage"),
        (ChatMessage("22", role="function"), "'function'"),
        (ChatMessage("22", role="tool"), "which call it answers"),
    ],
)
def test_what_no_message_can_hold_is_refused(message: BaseMessage, why: str) -> None:
    with pytest.raises(WrongInput) as raised:
        to_chat_messages([HumanMessage("Hi"), message])
    assert why in str(raised.value)
    assert raised.value.hint


def test_an_empty_conversation_is_refused() -> None:
    with pytest.raises(WrongInput, match="no messages"):
        to_chat_messages([])


def test_a_reply_is_a_message_with_its_calls() -> None:
    function = {"name": "weather", "arguments": '{"city": "Rome"}'}
    call = {"id": "call-1", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert to_ai_message(Reply.dump(message)) == AIMessage(
        "", tool_calls=[{"name": "weather", "args": {"city": "Rome"}, "id": "call-1"}]
    )
    assert to_ai_message(Reply.dump({"role": "assistant", "content": "Hi"})) == AIMessage("Hi")
    assert to_ai_message(Text.of("Grüße".encode()), id="m") == AIMessage("Grüße", id="m")
