"""A job graph that no longer changes: checked, ordered, identified by its digest."""

from __future__ import annotations

import graphlib
import hashlib
import string
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr

from agentkit.artifacts import Artifact
from agentkit.errors import CyclicGraph, DuplicateNode, GraphError, UnknownInput, WrongInput
from agentkit.graph import callables
from agentkit.graph.nodes import InferNode, LocalNode, Name, Node, NodeBase, canonical
from agentkit.graph.refs import InputRef


class FrozenGraph(BaseModel):
    """Nodes in an order in which each stands after its inputs.

    Functions of `local` nodes ride along in the process that made them; elsewhere they are found
    again by their spec.  They are not part of the document.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    nodes: tuple[Node, ...]

    _functions: dict[str, Callable[..., Any]] = PrivateAttr(default_factory=dict)

    @classmethod
    def build(
        cls,
        name: str,
        nodes: tuple[Node, ...],
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> FrozenGraph:
        """Check and order nodes; raises GraphError's children, naming the node at fault."""
        if not nodes:
            raise GraphError(
                f"graph {name!r} has no nodes", hint="add one, for example graph.infer(...)"
            )
        known: dict[str, Node] = {}
        for node in nodes:
            if node.name in known:
                raise DuplicateNode(f"two nodes are called {node.name!r}")
            known[node.name] = node
        for node in nodes:
            check_node(node, known)
        ordered = tuple(known[name] for name in _order(known))
        graph = cls(name=name, nodes=ordered)
        graph._functions.update(functions or {})
        return graph

    @cached_property
    def digest(self) -> str:
        """sha256 over the canonical JSON: the identity of the graph."""
        document = {"name": self.name, "nodes": [node.identity() for node in self.nodes]}
        return hashlib.sha256(canonical(document)).hexdigest()

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """The names of the nodes that each node reads, each once."""
        return {
            node.name: tuple(dict.fromkeys(ref.node for _, ref, _ in node.edges()))
            for node in self.nodes
        }

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return the function of every local node; raises WrongInput when one is not found."""
        known = self._functions
        return {
            node.name: known.get(node.name) or callables.find(node.fn)
            for node in self.nodes
            if isinstance(node, LocalNode)
        }

    def adopt(self, other: FrozenGraph | None) -> None:
        """Take the functions of an equal graph, and see that all are there; raises WrongInput."""
        if other is not None and other.digest != self.digest:
            raise WrongInput(
                f"the graph given ({other.digest[:6]}) is not the one of the run"
                f" ({self.digest[:6]})",
                hint="build the graph exactly as it was when the run began",
            )
        if other is not None:
            self._functions.update(other._functions)
        self.functions()


def check_node(node: NodeBase, known: Mapping[str, NodeBase]) -> None:
    """Check one node's edges against the nodes known; raises UnknownInput, WrongInput."""
    for what, ref, wanted in node.edges():
        _check_edge(node.name, what, ref, wanted, known)
    if isinstance(node, InferNode):
        _check_prompt(node)
        _check_schema(node)


def _check_schema(node: InferNode) -> None:
    if not isinstance(node.output, dict):
        return
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(node.output)
    except SchemaError as wrong:
        raise WrongInput(
            f"output of node {node.name!r} is not a JSON schema: {wrong.message}",
            hint="pass a pydantic model or a type as output=",
        ) from wrong


def _check_edge(
    node: str, what: str, ref: InputRef, wanted: type[Artifact], known: Mapping[str, NodeBase]
) -> None:
    source = known.get(ref.node)
    if source is None:
        raise UnknownInput(f"{what} of node {node!r} comes from {ref.node!r}, which is not there")
    if ref.output >= len(source.outputs):
        raise UnknownInput(f"{what} of node {node!r}: {ref.node!r} has no output {ref.output}")
    given = source.outputs[ref.output]
    if not issubclass(given, wanted):
        raise WrongInput(
            f"{what} of node {node!r} must be a {wanted.__name__}, and {ref} is a {given.__name__}",
            hint=f"pass a ref of a node that produces a {wanted.__name__}",
        )


def _check_prompt(node: InferNode) -> None:
    try:
        names = node.placeholders()
        specs = [spec for _, _, spec, _ in string.Formatter().parse(node.prompt) if spec]
    except ValueError as wrong:
        raise WrongInput(
            f"the prompt of node {node.name!r} has unbalanced braces",
            hint="write {{ and }} for braces that are meant literally",
        ) from wrong
    odd = [name for name in names if not name.isidentifier()] + specs
    if odd:
        raise WrongInput(
            f"the prompt of node {node.name!r} holds {{{odd[0]}}}, which is not a plain name",
            hint="name a column or an input in braces; write {{ and }} for literal braces",
        )
    missing = names - set(node.inputs)
    if missing and not node.over:
        raise UnknownInput(
            f"the prompt of node {node.name!r} names {{{min(missing)}}} and has no such input",
            hint=f'pass inputs={{"{min(missing)}": ref}}',
        )


def _order(known: Mapping[str, NodeBase]) -> tuple[str, ...]:
    edges = {name: {ref.node for _, ref, _ in node.edges()} for name, node in known.items()}
    try:
        return tuple(graphlib.TopologicalSorter(edges).static_order())
    except graphlib.CycleError as cycle:
        import networkx

        graph = networkx.DiGraph(
            [(source, name) for name, sources in edges.items() for source in sources]
        )
        loop = [source for source, _ in networkx.find_cycle(graph)]
        raise CyclicGraph(f"nodes wait for one another: {' -> '.join([*loop, loop[0]])}") from cycle
