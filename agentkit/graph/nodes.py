"""The nodes of a job graph, as frozen data: what the document holds and the digest covers."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from agentkit.artifacts import KINDS, Artifact, Dataset, Embedding, Json, Model, Table, Text
from agentkit.graph.callables import CallableSpec
from agentkit.graph.refs import InputRef

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Needs(BaseModel):
    """Hardware a node asks for; `hours` bounds how long it may run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: str = ""
    count: int = Field(default=1, ge=1)
    hours: float = Field(default=1.0, gt=0)


class NodeBase(BaseModel):
    """What every node has.

    `retries`: further tries after a failure known not to be paid.  `timeout`: seconds for one
    try.  `on_unknown`: what to do when a try's outcome cannot be found out.  `privacy="tee"`:
    only providers that attest a trusted environment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    retries: int = Field(default=2, ge=0, le=20)
    timeout: float | None = Field(default=None, gt=0)
    on_unknown: Literal["pause", "rebuy"] = "pause"
    privacy: Literal["tee"] | None = None

    def edges(self) -> Iterator[tuple[str, InputRef, type[Artifact]]]:
        """Yield (what for, edge, the type of artifact it must carry)."""
        yield from ()

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        """The types of artifact this node produces, in order."""
        raise TypeError(f"{type(self).__name__} does not say what it produces")

    def identity(self) -> dict[str, Any]:
        """Return what the digest of the graph covers of this node."""
        return self.model_dump(mode="json")


class InferNode(NodeBase):
    """Ask a model.  With `over`, once for every row of a table, filling `{column}`s in."""

    kind: Literal["infer"]
    model: str | InputRef
    prompt: str
    inputs: dict[str, InputRef] = {}
    over: InputRef | None = None
    max_items: int = Field(default=100, ge=1)
    style: Literal["chat", "complete"] = "chat"
    output: dict[str, Any] | Literal["embedding"] | None = None
    max_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    stop: tuple[str, ...] = ()

    def edges(self) -> Iterator[tuple[str, InputRef, type[Artifact]]]:
        if isinstance(self.model, InputRef):
            yield "model", self.model, Model
        if self.over:
            yield "over", self.over, Table
        for name, ref in self.inputs.items():
            yield name, ref, Artifact

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        if self.output == "embedding":
            return (Embedding,)
        if self.over:
            return (Dataset,)
        return (Json,) if self.output else (Text,)

    def placeholders(self) -> set[str]:
        """The names in braces in the prompt."""
        return {name for _, name, _, _ in string.Formatter().parse(self.prompt) if name is not None}


class TrainNode(NodeBase):
    """Train a model on a dataset: columns `text` and `label`, method `head` or a provider's own."""

    kind: Literal["train"]
    base: str
    dataset: InputRef
    method: str = "head"
    text: str = "text"
    label: str = "label"
    epochs: int = Field(default=20, ge=1)
    seed: int = 0
    needs: Needs | None = None

    def edges(self) -> Iterator[tuple[str, InputRef, type[Artifact]]]:
        yield "dataset", self.dataset, Table

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (Model,)


class SourceNode(NodeBase):
    """Bring a table in: a path or a URI, pinned by `sha256` if that is given."""

    kind: Literal["data"]
    op: Literal["source"]
    source: str
    sha256: Sha256 | None = None

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (Dataset,)


class SqlNode(NodeBase):
    """Query tables: each input is a table of the same name."""

    kind: Literal["data"]
    op: Literal["sql"]
    sql: str
    inputs: dict[Name, InputRef]

    def edges(self) -> Iterator[tuple[str, InputRef, type[Artifact]]]:
        for name, ref in self.inputs.items():
            yield name, ref, Table

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (Dataset,)


class SplitNode(NodeBase):
    """Part a table in two by a seeded draw: a share `at` of the rows, then the rest."""

    kind: Literal["data"]
    op: Literal["split"]
    table: InputRef
    at: float = Field(gt=0, lt=1)
    seed: int = 0

    def edges(self) -> Iterator[tuple[str, InputRef, type[Artifact]]]:
        yield "table", self.table, Table

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (Dataset, Dataset)


class LocalNode(NodeBase):
    """Call a pure Python function on the agent's own machine; it is never shipped."""

    kind: Literal["local"]
    fn: CallableSpec
    args: tuple[InputRef, ...] = ()
    returns: str = "json"

    def edges(self) -> Iterator[tuple[str, InputRef, type[Artifact]]]:
        for number, ref in enumerate(self.args):
            yield f"argument {number + 1}", ref, Artifact

    @property
    def outputs(self) -> tuple[type[Artifact], ...]:
        return (KINDS[self.returns],)

    def identity(self) -> dict[str, Any]:
        """Leave out where the file stands: the same function elsewhere is the same graph."""
        return self.model_dump(mode="json", exclude={"fn": {"file"}})


DataNode = Annotated[SourceNode | SqlNode | SplitNode, Field(discriminator="op")]
Node = Annotated[InferNode | TrainNode | DataNode | LocalNode, Field(discriminator="kind")]


def canonical(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
