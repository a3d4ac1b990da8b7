"""A job graph that no longer changes: checked, ordered, identified by its digest."""

from __future__ import annotations

import graphlib
import hashlib
import string
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Any, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
)

from agentkit import strict_json
from agentkit.artifacts import Artifact
from agentkit.errors import (
    ConfigError,
    CyclicGraph,
    DuplicateNode,
    GraphError,
    UnknownInput,
    WrongInput,
)
from agentkit.graph.callables import (
    NO_CONSENT,
    CallableSpec,
    CodeReader,
    Consent,
    describe,
    not_here,
)
from agentkit.graph.checks import Named, VerifySpec
from agentkit.graph.code import CodeFile, running_digest
from agentkit.graph.conditions import Condition
from agentkit.graph.nodes import InferNode, LocalNode, Name, NodeBase, PaidNode, canonical
from agentkit.graph.parts import with_parts
from agentkit.graph.plugins import factory_of, verifier_entry
from agentkit.graph.refs import InputRef
from agentkit.graph.registry import Node, unknown_kind
from agentkit.graph.schemas import fault_of
from agentkit.graph.unknown import UnknownNode

Function: TypeAlias = Callable[..., Any]
Place: TypeAlias = tuple[str, str]
Functions: TypeAlias = Mapping[Place, Function]
"""Functions of this process by node and place in it.

Not by spec: closures and lambdas of one line share theirs.
"""


class FrozenGraph(BaseModel):
    """Nodes in an order in which each stands after its inputs.

    Functions (of `local` nodes, conditions and checks) ride along in the process that made them;
    elsewhere `adopt` loads them by their spec.  They are not part of the document.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    nodes: tuple[Node, ...]

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
            _check_known(node)
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
        """The digest as it would be whatever functions the graph names."""
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
        """The parents and the children of each node, by name."""
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

        It is one of this process, or `adopt` has loaded it.
        """
        remembered = self._functions.get((node, place))
        if remembered is None:
            raise not_here(self.by_name[node].callables()[place])
        return remembered

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
        """Return the checks of a node, each with its function; raises WrongInput.

        That of a check of another package makes the verifier.
        """
        paid = self.by_name[node]
        return tuple(
            (check, self._check_function(node, n, check))
            for n, check in enumerate(paid.verify if isinstance(paid, PaidNode) else ())
        )

    def _check_function(self, node: str, number: int, check: VerifySpec) -> Function | None:
        if check.check == "callable":
            return self.function(node, f"verify.{number}.fn")
        return self._functions.get((node, f"verify.{number}"))

    def same_but_for_code(self, other: FrozenGraph) -> bool:
        """Whether the other is this graph with other functions, or with other code in them."""
        return other.shape == self.shape and other.digest != self.digest

    def changed_in(self, other: FrozenGraph) -> list[str]:
        """Return the nodes that say something else in a graph of the same shape."""
        return [n.name for n in self.nodes if n.identity() != other.by_name[n.name].identity()]

    def adopt(
        self,
        other: FrozenGraph | None,
        needed: Collection[str] | None = None,
        consent: Consent = NO_CONSENT,
    ) -> FrozenGraph:
        """Take the functions of an equal graph, and load those that this process has not.

        `needed` names the nodes whose functions must be there; None is all of them.  Nothing is
        loaded before `consent` covers all of it.  Returns this graph; or, where a file that
        `consent` has as mended changes functions of it, the graph with these.  Raises WrongInput
        (UnknownKind for a node whose kind is not installed), UntrustedCode, ConfigError.
        """
        if other is not None:
            self._check_equal(other)
            self._functions.update(other._functions)
        missing = [node for node in self.nodes if needed is None or node.name in needed]
        for node in missing:
            _check_known(node)
        reader = CodeReader(consent)
        functions = [named for node in missing for named in self._missing_functions(node)]
        plugins = [named for node in missing for named in self._missing_plugins(node)]
        for _, spec in functions:
            reader.need(spec)
        for _, entry in plugins:
            reader.need_module(entry.module)
        reader.check()
        self._functions.update({key: reader.find(spec) for key, spec in functions})
        self._functions.update(
            {key: factory_of(e, reader.find_in(e.module, e.attr)) for key, e in plugins}
        )
        loaded = {spec: describe(self._functions[place]) for place, spec in functions}
        changed = {spec: new for spec, new in loaded.items() if new.bare() != spec.bare()}
        return self._with_code(changed, needed) if changed else self

    def _with_code(
        self, changed: Mapping[CallableSpec, CallableSpec], needed: Collection[str] | None
    ) -> FrozenGraph:
        """Return this graph with other functions in the nodes that are `needed`."""

        def renewed(node: Node) -> Node:
            if needed is not None and node.name not in needed:
                return node
            return with_parts(node, CallableSpec, lambda spec: changed.get(spec, spec))

        return FrozenGraph.build(self.name, tuple(map(renewed, self.nodes)), self._functions)

    def _missing_functions(self, node: Node) -> list[tuple[Place, CallableSpec]]:
        return [named for named in _functions_of(node) if named[0] not in self._functions]

    def _missing_plugins(self, node: Node) -> list[tuple[Place, EntryPoint]]:
        return [
            (place, verifier_entry(name))
            for place, name in _plugins_of(node)
            if place not in self._functions
        ]

    def check_findable(self, done: Collection[str] = ()) -> None:
        """Raise WrongInput for a function that this process has not, and that no file has.

        Such a graph can be priced and never run.  Nodes that are `done` need theirs no more.
        """
        for node in self.nodes:
            for _, spec in self._missing_functions(node) if node.name not in done else ():
                try:
                    CodeReader().need(spec)
                except WrongInput as error:
                    raise WrongInput(
                        f"node {node.name!r} names a function that cannot be found: {error}",
                        hint="use the graph in the program that defines it, or write it there with"
                        " graph.save(), which notes file and sha256",
                    ) from error

    def code_to_load(self) -> tuple[CodeFile, ...]:
        """Return the files that `adopt` would run, as they are now.

        Functions that this process has are left out, and so is what cannot be found.
        """
        return self._code(known=self._functions)

    def code_digests(self, only: Collection[str] | None = None) -> frozenset[str]:
        """Return the sha256 of the files of all its functions, but for what cannot be found.

        `only` names the nodes that are asked about.  Of what `adopt` has loaded it is that of the
        bytes that run here.
        """
        return frozenset(map(running_digest, self._code(known=(), only=only)))

    def _code(
        self, known: Collection[Place], only: Collection[str] | None = None
    ) -> tuple[CodeFile, ...]:
        """Return the files of functions and verifiers, but for those at places that are known."""
        reader = CodeReader()
        for node in self.nodes if only is None else [self.by_name[name] for name in only]:
            for place, spec in _functions_of(node):
                if place not in known:
                    with suppress(WrongInput):
                        reader.need(spec)
            for place, name in _plugins_of(node):
                if place not in known:
                    with suppress(WrongInput, ConfigError):
                        reader.need_module(verifier_entry(name).module)
        return reader.files

    def _check_equal(self, other: FrozenGraph) -> None:
        """Raise WrongInput unless another graph is this one, its functions included."""
        if self.same_but_for_code(other):
            changed = ", ".join(map(repr, self.changed_in(other)))
            raise WrongInput(
                f"functions of {changed} have changed since the run began",
                hint="put them back as they were, or run the graph anew",
            )
        if other.digest != self.digest:
            raise WrongInput(
                f"the graph given ({other.digest[:6]}) is not the one of the run"
                f" ({self.digest[:6]})",
                hint="build the graph as it was when the run began; only functions may change",
            )


def _check_known(node: Node) -> None:
    """Raise UnknownKind for a node of a kind that is not installed, which can only be shown."""
    if isinstance(node, UnknownNode):
        raise unknown_kind(node)


_NAME = TypeAdapter(Name)


def _checked_name(name: str) -> str:
    try:
        return _NAME.validate_python(name)
    except ValidationError as error:
        raise WrongInput(
            f"{name!r} is not a name for a graph", hint="use letters, digits, `_`, `.` and `-`"
        ) from error


def _check_node_writable(node: Node) -> None:
    """Raise WrongInput for a node that JSON cannot hold: it could not be stored or signed."""
    try:
        strict_json.dumps(node.identity())
        canonical(node.identity())
    except (strict_json.BadJson, ValueError, RecursionError) as error:
        raise WrongInput(
            f"node {node.name!r} cannot be written down: {error}",
            hint="give texts, numbers, lists and objects that JSON can hold",
        ) from error


def _functions_of(node: Node) -> list[tuple[Place, CallableSpec]]:
    return [((node.name, place), spec) for place, spec in node.callables().items()]


def _plugins_of(node: Node) -> list[tuple[Place, str]]:
    """Return the names of other packages' verifiers in a node, by place."""
    return [
        ((node.name, f"verify.{number}"), check.name)
        for number, check in enumerate(node.verify if isinstance(node, PaidNode) else ())
        if isinstance(check, Named)
    ]


def check_node(node: NodeBase, known: Mapping[str, NodeBase]) -> None:
    """Check one node's edges against the nodes known; raises UnknownInput, WrongInput."""
    for what, ref, wanted in node.edges():
        _check_edge(node.name, what, ref, wanted, known)
    if isinstance(node, InferNode):
        _check_prompt(node)
        _check_schema(node)


def _check_schema(node: InferNode) -> None:
    for tool in node.tools:
        fault = fault_of(tool.function.parameters)
        if fault:
            raise WrongInput(
                f"the parameters of tool {tool.function.name!r} of node {node.name!r} are not a"
                f" JSON schema: {fault}",
                hint="pass a function with annotated parameters, or mend the schema",
            )
    fault = fault_of(node.output) if isinstance(node.output, dict) else ""
    if fault:
        raise WrongInput(
            f"output of node {node.name!r} is not a JSON schema: {fault}",
            hint="pass a pydantic model or a type as output=",
        )


def _check_edge(
    node: str, what: str, ref: InputRef, wanted: type[Artifact], known: Mapping[str, NodeBase]
) -> None:
    """Raise UnknownInput or WrongInput unless an edge leads to an output of the wanted type."""
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
    """Raise WrongInput for names in a prompt that nothing will fill in."""
    try:
        names = node.placeholders()
        parts = [part for text in node.templates for part in string.Formatter().parse(text)]
        specs = [spec for _, _, spec, _ in parts if spec]
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
    """Return the names of the nodes, each after those it reads; raises CyclicGraph with a cycle."""
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
