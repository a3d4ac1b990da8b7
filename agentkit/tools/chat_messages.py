"""Messages between LangChain and a graph: what a model reads, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages import ChatMessage as AnyRoleMessage
from langchain_core.messages.tool import tool_call, tool_call_chunk

from agentkit import strict_json
from agentkit.artifacts import Artifact, Reply
from agentkit.errors import WrongInput
from agentkit.graph.messages import CallOfTool, ChatMessage, FunctionCall, Role
from agentkit.strict_json import BadJson

TEXT_PARTS = ("text", "text-plain")
"""The parts of a message whose text is sent."""

THOUGHTS = ("reasoning", "thinking", "redacted_thinking")
"""The parts of a model's own message that are left out: a model's thoughts are not sent back."""

CALL_PARTS = ("tool_call", "tool_use", "function_call")
"""The parts of a model's own message that repeat its `tool_calls`."""

ROLES: Mapping[str, Role] = {"human": "user", "ai": "assistant", "developer": "system"}
"""Other names of roles, and OpenAI's first ones, which every endpoint knows."""


def to_chat_messages(messages: Sequence[BaseMessage]) -> list[ChatMessage]:
    """Return a conversation for a graph, braces doubled because a graph's texts are templates.

    Raises WrongInput for what no message of a graph can hold, such as a picture.
    """
    if not messages:
        raise WrongInput("there are no messages to answer", hint="pass at least one message")
    return [_to_chat_message(message) for message in messages]


def to_ai_message(answer: Artifact, **metadata: Any) -> AIMessage:
    """Return an answer as LangChain's message; `metadata` are further fields of it."""
    if not isinstance(answer, Reply):
        return AIMessage(content=answer.read().decode(), **metadata)
    calls: list[ToolCall] = [
        tool_call(name=call.name, args=call.arguments, id=call.id) for call in answer.tool_calls
    ]
    return AIMessage(content=answer.text, tool_calls=calls, **metadata)


def to_chunk(message: BaseMessage) -> AIMessageChunk:
    """Return a whole answer as the one chunk of a stream."""
    assert isinstance(message, AIMessage)
    chunks = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=n)
        for n, call in enumerate(message.tool_calls)
    ]
    return AIMessageChunk(
        content=message.content,
        tool_call_chunks=chunks,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )


def _to_chat_message(message: BaseMessage) -> ChatMessage:
    role = _role_of(message)
    content = _escaped(_text_of(message))
    match message:
        case ToolMessage():
            # The tool's name is left out: in OpenAI's form the call's id says which tool it was.
            return ChatMessage(role=role, content=content, tool_call_id=message.tool_call_id)
        case AIMessage():
            calls = _calls_of(message)
            if not content and not calls:
                raise WrongInput(
                    "a message of the model has neither text nor calls of tools",
                    hint="leave it out of the conversation",
                )
            return ChatMessage(
                role=role, content=content, tool_calls=calls, name=message.name or None
            )
        case _:
            return ChatMessage(role=role, content=content, name=message.name or None)


def _role_of(message: BaseMessage) -> Role:
    """Return the role of a message; raises WrongInput for one that chats do not have."""
    match message:
        case SystemMessage():
            return "system"
        case HumanMessage():
            return "user"
        case AIMessage():
            return "assistant"
        case ToolMessage():
            return "tool"
        case AnyRoleMessage():
            return _role_by_name(message.role)
    raise WrongInput(
        f"a chat takes no {type(message).__name__}",
        hint="write a SystemMessage, HumanMessage, AIMessage or ToolMessage",
    )


def _role_by_name(name: str) -> Role:
    """Return the role of that name; raises WrongInput for none, and for that of a tool's answer."""
    role = ROLES.get(name, name)
    if role == "tool":
        raise WrongInput(
            "a ChatMessage of role 'tool' does not say which call it answers",
            hint="write a ToolMessage with its tool_call_id",
        )
    for known in get_args(Role):
        if role == known:
            return known  # type: ignore[no-any-return]  # one of the literals of Role
    raise WrongInput(
        f"a chat has no role {name[:40]!r}",
        hint="write one of: system, developer, user, human, assistant, ai",
    )


# -- texts ---------------------------------------------------------------------------------------


def _text_of(message: BaseMessage) -> str:
    """Return the text of a message, its parts joined; raises WrongInput for a part that is none."""
    parts = [message.content] if isinstance(message.content, str) else message.content
    text = "".join(_texts_in(parts, message))
    try:
        f"{text}{message.name}".encode()
    except UnicodeEncodeError:
        raise WrongInput(
            f"a message of the {_role_of(message)} holds half of a character (a surrogate without"
            " its pair), which cannot be sent",
            hint='mend it where it is read, or with text.encode(errors="replace").decode()',
        ) from None
    return text


def _texts_in(parts: Sequence[Any], message: BaseMessage) -> Iterator[str]:
    """Yield the texts of a message's parts."""
    for part in parts:
        if isinstance(part, str):
            yield part
            continue
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind in TEXT_PARTS and isinstance(part.get("text"), str):
            yield part["text"]
        elif not (isinstance(message, AIMessage) and _is_said_elsewhere(part, message)):
            raise WrongInput(
                f"a message of the {_role_of(message)} has a part of type {str(kind)[:40]!r}, and"
                " this model takes text only",
                hint="describe pictures, audio and files in words, or leave them out",
            )


def _is_said_elsewhere(part: Mapping[str, Any], message: AIMessage) -> bool:
    """Return whether a part of a model's message is a thought, or a call in its `tool_calls`."""
    if part.get("type") in THOUGHTS:
        return True
    ids = [call["id"] for call in message.tool_calls]
    return part.get("type") in CALL_PARTS and part.get("call_id", part.get("id")) in ids


def _escaped(text: str) -> str:
    """Return a text in which braces stand for themselves once a graph fills names in."""
    return text.replace("{", "{{").replace("}", "}}")


# -- calls of tools ------------------------------------------------------------------------------


def _calls_of(message: AIMessage) -> tuple[CallOfTool, ...]:
    """Return the calls in a model's message; raises WrongInput for one that cannot be sent."""
    for unreadable in message.invalid_tool_calls:
        raise WrongInput(
            f"a message calls {unreadable.get('name')!r} with arguments that are not JSON",
            hint="leave the message and its answer out, or put the call into tool_calls",
        )
    return tuple(_call_of(call) for call in message.tool_calls)


def _call_of(call: ToolCall) -> CallOfTool:
    if not call["id"]:
        raise WrongInput(
            f"a call of {call['name']!r} has no id, so that no answer can belong to it",
            hint="give each call an id, and its ToolMessage the same tool_call_id",
        )
    try:
        arguments = strict_json.dumps(call["args"]).decode()
    except BadJson as error:
        raise WrongInput(
            f"the arguments of a call of {call['name']!r} cannot be sent: {error}",
            hint="call tools with plain text, numbers, lists and objects",
        ) from error
    return CallOfTool(id=call["id"], function=FunctionCall(name=call["name"], arguments=arguments))
