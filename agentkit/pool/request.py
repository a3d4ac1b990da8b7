"""The parameters of each kind of call, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agentkit.artifacts import Artifact
from agentkit.graph.messages import ChatMessage, ToolSpec


class _Params(BaseModel):
    """Parameters of a call; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


MAX_OUTPUT = 65_536
"""The most tokens that an answer may be asked to have."""

MAX_MESSAGES = 1000
MAX_TOOLS = 128


class NamedTool(_Params):
    """The one tool that has to be called, in the form of OpenAI's chat API."""

    type: Literal["function"] = "function"
    function: dict[Literal["name"], str] = Field(min_length=1)


class InferParams(_Params):
    """Ask a model of the catalogue, or a trained head that comes as the input `model`.

    The question is a `prompt`, or `messages` with which `tools` may be offered; both are in the
    form of OpenAI's chat API.
    """

    model: str = ""
    prompt: str | None = None
    style: Literal["chat", "complete"] = "chat"
    max_tokens: int = Field(default=64, ge=1, le=MAX_OUTPUT)
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    output: Literal["embedding"] | None = None
    messages: tuple[ChatMessage, ...] = Field(default=(), max_length=MAX_MESSAGES)
    tools: tuple[ToolSpec, ...] = Field(default=(), max_length=MAX_TOOLS)
    tool_choice: Literal["auto", "none", "required"] | NamedTool = "auto"
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    top_p: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _is_one_question(self) -> Self:
        if (self.prompt is None) == (not self.messages):
            raise ValueError("either a prompt or messages have to be given")
        is_chat = self.style == "chat" and self.output is None
        if (self.messages or self.tools) and not is_chat:
            raise ValueError("messages and tools are for chats")
        if self.tools and self.json_schema is not None:
            raise ValueError("tools and a schema exclude one another")
        names = {tool.function.name for tool in self.tools}
        if len(names) < len(self.tools):
            raise ValueError("two of the tools have the same name")
        if self.chosen_tool and self.chosen_tool not in names:
            raise ValueError(f"there is no tool {self.chosen_tool[:64]!r}")
        return self

    @property
    def conversation(self) -> tuple[ChatMessage, ...]:
        """The question as messages."""
        if self.prompt is None:
            return self.messages
        return (ChatMessage(role="user", content=self.prompt),)

    @property
    def chosen_tool(self) -> str:
        """The name of the tool that has to be called, "" where none is named."""
        choice = self.tool_choice
        return choice.function["name"] if isinstance(choice, NamedTool) else ""


class TrainParams(_Params):
    """Train a head on columns of the input `dataset`."""

    base: str
    method: str = "head"
    text: str = "text"
    label: str = "label"
    epochs: int = Field(default=20, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0)


class QueryParams(_Params):
    """Run one SELECT over the inputs, each a table of its name."""

    op: Literal["sql"]
    sql: str = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a call: its outputs, its usage, and the model that did it ("" without one).

    `usage` counts the units that are charged: `input` and `output` tokens, `row`s, `byte`s.
    `cpu_ms` is the measured processor time in milliseconds.  `finish_reason`: why the model
    stopped, in the words of OpenAI's API; "" for what is no text.
    """

    outputs: tuple[Artifact, ...]
    usage: dict[str, int]
    model: str
    cpu_ms: int = 0
    finish_reason: str = ""
