"""The parameters of each kind of call, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentkit.artifacts import Artifact


class _Params(BaseModel):
    """Parameters of a call; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class InferParams(_Params):
    """Ask a model of the catalogue, or a trained head that comes as the input `model`."""

    model: str = ""
    prompt: str
    style: Literal["chat", "complete"] = "chat"
    max_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    output: Literal["embedding"] | None = None


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
    `cpu_ms` is the measured processor time in milliseconds.
    """

    outputs: tuple[Artifact, ...]
    usage: dict[str, int]
    model: str
    cpu_ms: int = 0
