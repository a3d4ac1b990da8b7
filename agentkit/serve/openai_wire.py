"""The requests of OpenAI's API that a provider node understands.

Unknown fields are ignored, as other compatible servers do.  A known field that asks for something
the node cannot do is refused.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentkit.errors import Refused

MAX_OUTPUT = 65_536
DEFAULT_OUTPUT = 64

Stops = list[str]


class OpenAIRequest(BaseModel):
    """The fields and methods that all requests have."""

    model_config = ConfigDict(frozen=True, strict=True, protected_namespaces=())

    model: str = Field(min_length=1, max_length=200)

    @property
    def text(self) -> str:
        """The prompt."""
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
    """The form of an answer."""

    model_config = ConfigDict(frozen=True)

    type: Literal["text", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class _Generation(OpenAIRequest):
    """A request for text."""

    max_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT)
    temperature: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    stop: str | Stops | None = None
    stream: bool | None = None
    response_format: ResponseFormat | None = None

    @property
    def output_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or DEFAULT_OUTPUT

    def _params(self, style: str) -> dict[str, Any]:
        """Return the parameters of the pool's task; raises Refused for a streamed answer."""
        if self.stream:
            raise Refused("this node does not stream")
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        schema: dict[str, Any] | None = None
        if self.response_format and self.response_format.type == "json_schema":
            wrapper = self.response_format.json_schema
            schema = wrapper.json_schema if wrapper else None
        return {
            "model": self.model,
            "prompt": self.text,
            "style": style,
            "max_tokens": self.output_tokens,
            "temperature": self.temperature or 0.0,
            "stop": [text for text in stop if text],
            "schema": schema,
        }


class ChatMessage(BaseModel):
    """One message; its content is one text."""

    model_config = ConfigDict(frozen=True, strict=True)

    role: str = "user"
    content: str


class ChatRequest(_Generation):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage]

    @property
    def text(self) -> str:
        return self.messages[0].content if self.messages else ""

    def params(self) -> dict[str, Any]:
        if len(self.messages) != 1:
            raise Refused("this node answers one user message at a time")
        return self._params("chat")


class CompletionRequest(_Generation):
    """`POST /v1/completions`."""

    prompt: str

    @property
    def text(self) -> str:
        return self.prompt

    def params(self) -> dict[str, Any]:
        return self._params("complete")


class EmbeddingRequest(OpenAIRequest):
    """`POST /v1/embeddings`."""

    text_input: str = Field(alias="input")

    @property
    def text(self) -> str:
        return self.text_input

    def params(self) -> dict[str, Any]:
        return {"model": self.model, "prompt": self.text, "output": "embedding"}
