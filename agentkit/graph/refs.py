"""Handles on what nodes will produce: typed for people, plain for the document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict

from agentkit.artifacts import Artifact, Json
from agentkit.errors import WrongInput

T_co = TypeVar("T_co", bound=Artifact, covariant=True)


class InputRef(BaseModel):
    """An edge as the document holds it: output number `output` of node `node`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    output: int = 0

    def __str__(self) -> str:
        return f"{self.node}[{self.output}]" if self.output else self.node


@lru_cache(maxsize=1 << 14)
def _input(node: str, output: int) -> InputRef:
    """Return one edge for all that read the same: in wide graphs most of the memory is edges."""
    return InputRef(node=node, output=output)


@dataclass(frozen=True, slots=True)
class Ref(Generic[T_co]):
    """A typed handle on what a node will produce; only a graph's own methods make one.

    The methods make conditions for `when=`, about the JSON value or about its `key`.
    """

    graph: str
    node: str
    type: type[T_co]
    output: int = 0

    @property
    def input(self) -> InputRef:
        """The edge from here, as the document holds it."""
        return _input(self.node, self.output)

    def below(self: Ref[Json], value: float | str, *, key: str = "") -> When:
        return When(self, "below", value, key)

    def above(self: Ref[Json], value: float | str, *, key: str = "") -> When:
        return When(self, "above", value, key)

    def at_least(self: Ref[Json], value: float | str, *, key: str = "") -> When:
        return When(self, "at_least", value, key)

    def at_most(self: Ref[Json], value: float | str, *, key: str = "") -> When:
        return When(self, "at_most", value, key)

    def equals(self: Ref[Json], value: str | float | None, *, key: str = "") -> When:
        return When(self, "equals", value, key)

    def differs(self: Ref[Json], value: str | float | None, *, key: str = "") -> When:
        return When(self, "differs", value, key)

    def holds(self: Ref[Json], fn: Callable[[Any], bool], *, key: str = "") -> When:
        """Return the condition that `fn`, given the value, returns True; keep it pure."""
        return When(self, "holds", key=key, fn=fn)


@dataclass(frozen=True, slots=True)
class When:
    """A condition on its way into a graph: about a typed ref, with its function itself."""

    ref: Ref[Any]
    op: str
    value: str | float | None = None
    key: str = ""
    fn: Callable[[Any], bool] | None = None

    def __bool__(self) -> NoReturn:
        """Refuse `a and b`, which would drop a condition without a word."""
        raise WrongInput(
            "a condition is not known before the run, so it has no truth here",
            hint="pass several as a list, when=[a, b], and all of them must hold",
        )
