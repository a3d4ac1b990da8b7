"""Conversations as models read them: messages and tools, in the form of OpenAI's chat API.

The form is the one that chat endpoints share (https://platform.openai.com/docs/api-reference/chat),
so that messages and tools go to a provider as they stand here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, StringConstraints, field_validator
from pydantic import model_validator as model_check

from agentkit import strict_json
from agentkit.errors import AgentKitError, WrongInput, brief
from agentkit.graph.schemas import without_null_defaults
from agentkit.strict_json import BadJson
from agentkit.user_values import UserValue

Role = Literal["system", "user", "assistant", "tool"]

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

CallId = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Part(UserValue):
    """What a conversation is made of: frozen, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    error_class: ClassVar[type[AgentKitError]] = WrongInput


class FunctionCall(_Part):
    """A function by its name, and its `arguments` as the text of a JSON object."""

    name: ToolName
    arguments: str = "{}"

    @field_validator("arguments")
    @classmethod
    def _is_an_object(cls, arguments: str) -> str:
        try:
            given = strict_json.loads(arguments)
        except BadJson as error:
            raise ValueError(f"they are not JSON: {error}") from error
        if not isinstance(given, dict):
            raise ValueError("they are not a JSON object")  # noqa: TRY004  # pydantic takes this
        return arguments


class CallOfTool(_Part):
    """A model's call of a tool; a message of role `tool` answers it by its `id`."""

    id: CallId
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(_Part):
    """One message of a conversation.

    In a node's messages, `{name}` in `content` stands for a column or an input.  An assistant's
    message may have `tool_calls`, and a tool's names the call that it answers.
    """

    role: Role
    content: str = ""
    tool_calls: tuple[CallOfTool, ...] = ()
    tool_call_id: CallId | None = None
    name: str | None = Field(default=None, min_length=1, max_length=200)

    @field_validator("content", mode="before")
    @classmethod
    def _text(cls, content: Any) -> Any:
        """Take what OpenAI's API takes beside text: nothing, or a list of parts that are text."""
        if content is None:
            return ""
        if not isinstance(content, list | tuple):
            return content
        texts = [_text_of(part) for part in content]
        return "".join(texts)

    @model_check(mode="after")
    def _fits_its_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a message of the {self.role} calls no tools")
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise ValueError("tool_call_id is for messages of role tool, which need it")
        if self.role == "assistant" and not self.content and not self.tool_calls:
            raise ValueError("an assistant's message needs content or tool_calls")
        return self

    def on_wire(self, content: str | None = None) -> dict[str, Any]:
        """Return the message for a provider; `content` is the text with its names filled in."""
        text = self.content if content is None else content
        message = self.model_dump(mode="json", exclude_none=True)
        message |= {"content": text if text or not self.tool_calls else None}
        if not self.tool_calls:
            del message["tool_calls"]
        return message


class ToolFunction(_Part):
    """What a model is told of a function; `parameters` is the JSON schema of its arguments.

    Whether it is a schema is not looked at here: that takes time, and a node reads such documents
    from anybody.
    """

    name: ToolName
    description: str = ""
    parameters: dict[str, Any] = {}


class ToolSpec(_Part):
    """A tool that a model may call: a function, which the caller of the model runs itself."""

    type: Literal["function"] = "function"
    function: ToolFunction

    def on_wire(self) -> dict[str, Any]:
        """Return the tool for a provider."""
        return self.model_dump(mode="json")


def system(content: str) -> ChatMessage:
    """Return a message that tells the model how to behave."""
    return ChatMessage(role="system", content=content)


def user(content: str) -> ChatMessage:
    """Return a message of the user."""
    return ChatMessage(role="user", content=content)


def assistant(content: str) -> ChatMessage:
    """Return a message that the model wrote earlier, or an example of what it is to write."""
    return ChatMessage(role="assistant", content=content)


def tool_result(call: str, content: str) -> ChatMessage:
    """Return what a tool answered to the call with this id."""
    return ChatMessage(role="tool", tool_call_id=call, content=content)


MessageLike: TypeAlias = ChatMessage | Mapping[str, Any]
"""A message, or one in OpenAI's form."""


def tool_of(given: Any) -> ToolSpec | Mapping[str, Any]:
    """Return a tool for the document: of a function, a pydantic model, or LangChain's tool.

    One in OpenAI's form is returned as it is.  Raises WrongInput for what cannot be described.
    """
    if isinstance(given, ToolSpec) or (isinstance(given, Mapping) and "function" in given):
        return given
    from langchain_core.utils.function_calling import convert_to_openai_tool

    try:
        function = convert_to_openai_tool(given)["function"]
    except (TypeError, ValueError) as error:
        name = getattr(given, "__name__", None) or given
        raise WrongInput(
            f"{repr(name)[:80]} is not a tool: {brief(str(error))}",
            hint="pass a function with annotated parameters and a docstring, or a pydantic model",
        ) from error
    except KeyError as error:
        raise WrongInput(
            f"{str(given)[:80]} is a tool that a provider runs itself, and none here does",
            hint="pass a function, and call it yourself when the reply asks for it",
        ) from error
    return {
        "type": "function",
        "function": {
            "name": function["name"],
            "description": function.get("description") or "",
            "parameters": without_null_defaults(function.get("parameters") or {}),
        },
    }


def _text_of(part: Any) -> str:
    """Return the text of a part of a message; raises ValueError for a part that is none."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise ValueError(f"a part of type {json.dumps(str(kind))[:60]} is not text")
