"""One graph within another: its nodes under new names, and the handles on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from pydantic import ValidationError

from agentkit.artifacts import Artifact
from agentkit.errors import UnknownInput, WrongInput
from agentkit.graph import codec
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.refs import InputRef, Ref
from agentkit.graph.registry import Node

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True, slots=True, repr=False)
class Included:
    """What became of another graph's refs: `included[ref]` or `included["name"]` is one of here."""

    graph: str
    refs: Mapping[InputRef, Ref[Any]]

    @overload
    def __getitem__(self, ref: Ref[A]) -> Ref[A]: ...

    @overload
    def __getitem__(self, ref: str) -> Ref[Any]: ...

    def __getitem__(self, ref: Ref[Any] | str) -> Ref[Any]:
        key = InputRef(node=ref) if isinstance(ref, str) else ref.input
        found = self.refs.get(key)
        if found is None or (isinstance(ref, Ref) and ref.graph != self.graph):
            raise UnknownInput(
                f"{key} is not of the graph {self.graph!r} that was included",
                hint="pass a ref of that graph, or the name of one of its nodes",
            )
        return found

    def __repr__(self) -> str:
        return f"<Included {self.graph!r}: {', '.join(map(str, self.refs))}>"


def moved(graph: FrozenGraph, prefix: str, bound: Mapping[str, InputRef]) -> dict[str, Node]:
    """Return a graph's nodes by their old names, under the new ones and without those bound.

    What read a bound node reads what it is bound to.  Raises UnknownInput, WrongInput.
    """
    for name in bound:
        if name not in graph.by_name:
            raise UnknownInput(
                f"bind= names {name!r}, and graph {graph.name!r} has no such node",
                hint=f"name one of: {', '.join(sorted(graph.by_name))}",
            )

    def follow(ref: InputRef) -> InputRef:
        """Return the edge as it is in the graph that includes this one."""
        if ref.node not in bound:
            return ref.model_copy(update={"node": prefix + ref.node})
        if ref.output:
            raise WrongInput(
                f"{ref.node!r} is bound to one ref, and its output {ref.output} is read too",
                hint="bind the nodes that read it instead",
            )
        return bound[ref.node]

    return {
        node.name: _renamed(node.with_refs(follow), prefix + node.name)
        for node in graph.nodes
        if node.name not in bound
    }


def _renamed(node: Node, name: str) -> Node:
    try:
        return node.renamed(name)
    except ValidationError as wrong:
        raise codec.as_wrong_input(f"node {name!r}", wrong, {"name": name}) from wrong
