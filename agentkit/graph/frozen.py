"""A job graph that no longer changes: checked, ordered, identified by its digest."""

from __future__ import annotations

import graphlib
import hashlib
import string
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
)

from agentkit import strict_json
from agentkit.artifacts import Artifact
from agentkit.errors import CyclicGraph, DuplicateNode, GraphError, UnknownInput, WrongInput
from agentkit.graph import callables
from agentkit.graph.conditions import Condition
from agentkit.graph.nodes import InferNode, LocalNode, Name, Node, NodeBase, PaidNode, canonical
from agentkit.graph.refs import InputRef
from agentkit.graph.schemas import fault_of
from agentkit.graph.verifying import VerifySpec

Function: TypeAlias = Callable[..., Any]
Functions: TypeAlias = Mapping[tuple[str, str], Function]
"""Functions of this process by node and place in it.

Not by spec: closures and lambdas of one line share theirs.
"""


class FrozenGraph(BaseModel):
    """Nodes in an order in which each stands after its inputs.

    Functions (of `local` nodes, conditions and checks) ride along in the process that made them;
    elsewhere they are found again by their spec.  They are not part of the document.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    nodes: tuple[SerializeAsAny[Node], ...]  # or it is looked for in the union, at twice the cost

    _functions: dict[tuple[str, str], Function] = PrivateAttr(default_factory=dict)

    @classmethod
    def build(
        cls, name: str, nodes: tuple[Node, ...], functions: Functions | None = None
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
        graph = cls(name=_checked_name(name), nodes=ordered)
        graph._check_writable()
        graph._functions.update(functions or {})
        return graph

    def _check_writable(self) -> None:
        """Raise WrongInput for a value that neither a digest nor a file can be made of."""
        try:
            self.digest  # noqa: B018  # it is kept, and needed soon
        except (ValueError, RecursionError):
            for node in self.nodes:
                _check_node_writable(node)

    @cached_property
    def digest(self) -> str:
        """sha256 over the canonical JSON: the identity of the graph, however it was put down."""
        return self._hash(code=True)

    @cached_property
    def shape(self) -> str:
        """The digest as it would be whatever the functions of the graph said."""
        return self._hash(code=False)

    def _hash(self, *, code: bool) -> str:
        nodes = sorted(self.nodes, key=lambda node: node.name)
        document = {"name": self.name, "nodes": [node.identity(code=code) for node in nodes]}
        return hashlib.sha256(canonical(document)).hexdigest()

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """The names of the nodes that each node reads or depends on by `when`, each once."""
        return self._links[0]

    @property
    def children(self) -> dict[str, list[str]]:
        """The names of the nodes that wait for each node."""
        return self._links[1]

    @cached_property
    def _links(self) -> tuple[dict[str, tuple[str, ...]], dict[str, list[str]]]:
        parents: dict[str, tuple[str, ...]] = {}
        children: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            above = [source for _, source, _ in self.wires[node.name]]
            above += [condition.ref.node for condition in node.when]
            parents[node.name] = tuple(dict.fromkeys(above))
            for parent in parents[node.name]:
                children[parent].append(node.name)
        return parents, children

    @cached_property
    def wires(self) -> dict[str, tuple[tuple[str, str, int], ...]]:
        """What each node reads: what for, of which node, which of its outputs."""
        return {
            node.name: tuple([(what, ref.node, ref.output) for what, ref, _ in node.reads()])
            for node in self.nodes
        }

    @property
    def remembered(self) -> Functions:
        """The functions that this process has of the graph."""
        return self._functions

    def function(self, node: str, place: str) -> Function:
        """Return the function at a place of a node, as in `NodeBase.callables`; raises WrongInput.

        One that this process remembers comes before one that would have to be found.
        """
        remembered = self._functions.get((node, place))
        if remembered is not None:
            return remembered
        return callables.find(self.by_name[node].callables()[place])

    def functions(self) -> dict[str, Function]:
        """Return the function of every local node; raises WrongInput when one is not found."""
        return {
            node.name: self.function(node.name, "fn")
            for node in self.nodes
            if isinstance(node, LocalNode)
        }

    def conditions(self, node: str) -> tuple[tuple[Condition, Function | None], ...]:
        """Return the conditions of a node, each with its function; raises WrongInput."""
        return tuple(
            (condition, self.function(node, f"when.{number}.fn") if condition.fn else None)
            for number, condition in enumerate(self.by_name[node].when)
        )

    def checks(self, node: str) -> tuple[tuple[VerifySpec, Function | None], ...]:
        """Return the checks of a node, each with its function; raises WrongInput."""
        paid = self.by_name[node]
        return tuple(
            (check, self.function(node, f"verify.{n}.fn") if check.check == "callable" else None)
            for n, check in enumerate(paid.verify if isinstance(paid, PaidNode) else ())
        )

    def same_but_for_code(self, other: FrozenGraph) -> bool:
        """Whether the other is this graph with functions that say something else."""
        return other.shape == self.shape and other.digest != self.digest

    def adopt(self, other: FrozenGraph | None, needed: Collection[str] | None = None) -> None:
        """Take the functions of an equal graph, and see that all are there; raises WrongInput.

        `needed` names the nodes whose functions must be there; None is all of them.
        """
        if other is not None:
            self._check_equal(other)
            self._functions.update(other._functions)
        known = self._functions
        for node in self.nodes:
            for place in node.callables() if needed is None or node.name in needed else ():
                if (node.name, place) not in known:
                    self.function(node.name, place)

    def _check_equal(self, other: FrozenGraph) -> None:
        if self.same_but_for_code(other):
            changed = [
                n.name for n in self.nodes if n.identity() != other.by_name[n.name].identity()
            ]
            raise WrongInput(
                f"functions of {', '.join(map(repr, changed))} have changed since the run began",
                hint="put them back as they were, or run the graph anew",
            )
        if other.digest != self.digest:
            raise WrongInput(
                f"the graph given ({other.digest[:6]}) is not the one of the run"
                f" ({self.digest[:6]})",
                hint="build the graph exactly as it was when the run began",
            )


_NAME = TypeAdapter(Name)


def _checked_name(name: str) -> str:
    try:
        return _NAME.validate_python(name)
    except ValidationError as error:
        raise WrongInput(
            f"{name!r} is not a name for a graph", hint="use letters, digits, `_`, `.` and `-`"
        ) from error


def _check_node_writable(node: Node) -> None:
    try:
        strict_json.dumps(node.identity())
        canonical(node.identity())
    except (strict_json.BadJson, ValueError, RecursionError) as error:
        raise WrongInput(
            f"node {node.name!r} cannot be written down: {error}",
            hint="give texts, numbers, lists and objects that JSON can hold",
        ) from error


def check_node(node: NodeBase, known: Mapping[str, NodeBase]) -> None:
    """Check one node's edges against the nodes known; raises UnknownInput, WrongInput."""
    for what, ref, wanted in node.edges():
        _check_edge(node.name, what, ref, wanted, known)
    if isinstance(node, InferNode):
        _check_prompt(node)
        _check_schema(node)


def _check_schema(node: InferNode) -> None:
    fault = fault_of(node.output) if isinstance(node.output, dict) else ""
    if fault:
        raise WrongInput(
            f"output of node {node.name!r} is not a JSON schema: {fault}",
            hint="pass a pydantic model or a type as output=",
        )


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
    # Dicts, because the order of a set differs from process to process.
    edges = {
        name: dict.fromkeys(ref.node for _, ref, _ in node.edges()) for name, node in known.items()
    }
    try:
        return tuple(graphlib.TopologicalSorter(edges).static_order())
    except graphlib.CycleError as cycle:
        import networkx

        graph = networkx.DiGraph(
            [(source, name) for name, sources in edges.items() for source in sources]
        )
        loop = [source for source, _ in networkx.find_cycle(graph)]
        raise CyclicGraph(f"nodes wait for one another: {' -> '.join([*loop, loop[0]])}") from cycle
