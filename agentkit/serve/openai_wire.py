"""The requests of OpenAI's API that a provider node understands.

Unknown fields are ignored, as other compatible servers do.  A known field that asks for something
the node cannot do is refused.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from agentkit.errors import Refused
from agentkit.graph.messages import ChatMessage, ToolFunction, ToolSpec
from agentkit.kinds.questions import MESSAGE_TOKENS, TOOLS_TOKENS
from agentkit.pool.request import MAX_MESSAGES, MAX_OUTPUT, MAX_TOOLS, NamedTool

DEFAULT_OUTPUT = 64

Stops = list[str]


class OpenAIRequest(BaseModel):
    """The fields and methods that all requests have."""

    model_config = ConfigDict(frozen=True, strict=True, protected_namespaces=())

    model: str = Field(min_length=1, max_length=200)

    @property
    def input_bytes(self) -> int:
        """The bytes of all that the model reads, which has no more tokens than bytes."""
        raise NotImplementedError

    @property
    def output_tokens(self) -> int:
        """The most tokens of a text answer, 0 if the answer is not text."""
        return 0

    def params(self) -> dict[str, Any]:
        """Return the parameters of the pool's task; raises Refused for unsupported requests."""
        raise NotImplementedError


class JsonSchema(BaseModel):
    """The schema that an answer has to fit."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(BaseModel):
    """The form of an answer; `json_object` is an object of any form."""

    model_config = ConfigDict(frozen=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """The schema that an answer has to fit, None for plain text."""
        match self.type:
            case "json_object":
                return {"type": "object"}
            case "json_schema":
                return self.json_schema.json_schema if self.json_schema else None
            case _:
                return None


class _Generation(OpenAIRequest):
    """A request for text."""

    max_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT)
    temperature: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    n: int | None = None
    stop: str | Stops | None = None
    stream: bool | None = None
    response_format: ResponseFormat | None = None

    @property
    def output_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or DEFAULT_OUTPUT

    def _params(self, style: str) -> dict[str, Any]:
        """Return the parameters that all questions have; raises Refused for what is not done."""
        if self.stream:
            raise Refused("this node does not stream")
        if self.n not in (None, 1):
            raise Refused("this node gives one answer to a question, so n has to be 1")
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        params = {
            "model": self.model,
            "style": style,
            "max_tokens": self.output_tokens,
            "temperature": self.temperature or 0.0,
            "stop": [text for text in stop if text],
            "schema": self.response_format.schema_of_answer if self.response_format else None,
        }
        sampling = {"seed": self.seed, "top_p": self.top_p}
        return params | {name: value for name, value in sampling.items() if value is not None}


class RequestMessage(ChatMessage):
    """One message; fields that say nothing here are ignored."""

    model_config = ConfigDict(extra="ignore")

    @field_validator("role", mode="before")
    @classmethod
    def _by_our_name(cls, role: Any) -> Any:
        return "system" if role == "developer" else role  # the newer name for the same

    @field_validator("tool_calls", mode="before")
    @classmethod
    def _none_is_no_calls(cls, calls: Any) -> Any:
        return () if calls is None else calls


class RequestFunction(ToolFunction):
    """A function that may be called; fields that say nothing here, like `strict`, are ignored."""

    model_config = ConfigDict(extra="ignore")

    @field_validator("description", mode="before")
    @classmethod
    def _none_is_no_description(cls, description: Any) -> Any:
        return description or ""

    @field_validator("parameters", mode="before")
    @classmethod
    def _none_is_no_parameters(cls, parameters: Any) -> Any:
        return {} if parameters is None else parameters


class RequestTool(ToolSpec):
    """A tool that may be called."""

    model_config = ConfigDict(extra="ignore")

    function: RequestFunction


class ChatRequest(_Generation):
    """`POST /v1/chat/completions`."""

    messages: list[RequestMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    tools: list[RequestTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None

    @property
    def input_bytes(self) -> int:
        tools = [tool.model_dump_json() for tool in self.tools or ()]
        marks = MESSAGE_TOKENS * (len(self.messages) - 1) + (TOOLS_TOKENS if tools else 0)
        texts = [message.content for message in self.messages]
        texts += [c.model_dump_json() for message in self.messages for c in message.tool_calls]
        return marks + sum(len(text.encode()) for text in texts + tools)

    def params(self) -> dict[str, Any]:
        params = self._params("chat")
        params["messages"] = [message.on_wire() for message in self.messages]
        if self.tools:
            params["tools"] = [tool.on_wire() for tool in self.tools]
            choice = self.tool_choice or "auto"
            params["tool_choice"] = choice if isinstance(choice, str) else choice.model_dump()
        return params


class CompletionRequest(_Generation):
    """`POST /v1/completions`."""

    prompt: str

    @property
    def input_bytes(self) -> int:
        return len(self.prompt.encode())

    def params(self) -> dict[str, Any]:
        return {**self._params("complete"), "prompt": self.prompt}


class EmbeddingRequest(OpenAIRequest):
    """`POST /v1/embeddings`."""

    text_input: str = Field(alias="input")

    @property
    def input_bytes(self) -> int:
        return len(self.text_input.encode())

    def params(self) -> dict[str, Any]:
        return {"model": self.model, "prompt": self.text_input, "output": "embedding"}
