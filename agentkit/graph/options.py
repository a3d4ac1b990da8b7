"""The keywords that a graph's methods take beside their own, so that an editor sees a slip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from agentkit.graph.nodes import Timeouts
from agentkit.graph.refs import When


class NodeOptions(TypedDict, total=False):
    """What every node takes; the meaning of each is with `NodeBase`."""

    retries: int
    timeout: float | Timeouts | None
    on_unknown: Literal["pause", "rebuy"]
    privacy: Literal["tee"] | None
    when: When | Sequence[When] | None
    cache: bool
    approve: bool


class PaidOptions(NodeOptions, total=False):
    """What nodes take that are bought: a check, a function, or a list of them."""

    verify: Any


class InferOptions(PaidOptions, total=False):
    """What a question takes; the meaning of each is with `InferNode`."""

    max_items: int
    style: Literal["chat", "complete"]
    max_tokens: int
    temperature: float
    stop: Sequence[str]
    column: str | None
    on_error: Literal["pause", "skip"]
    tool_choice: str
    seed: int | None
    top_p: float | None


class TrainOptions(PaidOptions, total=False):
    """What a training takes; the meaning of each is with `TrainNode`."""

    text: str
    label: str
    epochs: int
    seed: int


class DataOptions(PaidOptions, total=False):
    """What a table takes; `sha256` is for a source alone."""

    sha256: str | None
