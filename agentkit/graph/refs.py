"""Handles on what nodes will produce: typed for people, plain for the document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from agentkit.artifacts import Artifact

T_co = TypeVar("T_co", bound=Artifact, covariant=True)


class InputRef(BaseModel):
    """An edge as the document holds it: output number `output` of node `node`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    output: int = 0

    def __str__(self) -> str:
        return f"{self.node}[{self.output}]" if self.output else self.node


@dataclass(frozen=True, slots=True)
class Ref(Generic[T_co]):
    """A typed handle on what a node will produce; only a graph's own methods make one."""

    graph: str
    node: str
    type: type[T_co]
    output: int = 0

    @property
    def input(self) -> InputRef:
        return InputRef(node=self.node, output=self.output)
