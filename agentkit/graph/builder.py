"""The builder people write graphs with: methods that return typed handles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack, overload

from pydantic import ValidationError

from agentkit.artifacts import Artifact, Dataset, Embedding, Json, Model, Reply, Table, Text
from agentkit.errors import DuplicateNode, UnknownInput, WrongInput
from agentkit.graph import callables, codec
from agentkit.graph.arguments import (
    check_of,
    installed_verifiers,
    keywords_of,
    listed,
    output_of,
    returned_by,
)
from agentkit.graph.frozen import FrozenGraph, Function, check_node
from agentkit.graph.included import Included, moved
from agentkit.graph.messages import MessageLike, tool_of
from agentkit.graph.nodes import (
    InferNode,
    LocalNode,
    Needs,
    NodeBase,
    RequestNode,
    SourceNode,
    SplitNode,
    SqlNode,
    TrainNode,
)
from agentkit.graph.options import (
    DataOptions,
    InferOptions,
    NodeOptions,
    PaidOptions,
    TrainOptions,
)
from agentkit.graph.refs import InputRef, Ref, When
from agentkit.graph.registry import Node, check_registered

A = TypeVar("A", bound=Artifact)
B = TypeVar("B", bound=Artifact)
C = TypeVar("C", bound=Artifact)
R = TypeVar("R", bound=Artifact)


class JobGraph:
    """A job graph under construction.

    Every method adds one node and returns a handle on what it will produce.  Keyword arguments
    that all nodes take: `retries`, `timeout` (seconds for one try, or `Timeouts`), `on_unknown`,
    `privacy`, `cache`, `approve`, and `when` (a condition like `report.below(0.8)`, or a list of
    them that must all hold).  Nodes that are bought take `verify`: a check, a function, or a list.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: dict[str, Node] = {}
        self._functions: dict[tuple[str, str], Function] = {}

    def __repr__(self) -> str:
        return f"<JobGraph {self.name!r}: {', '.join(self._nodes) or 'no nodes'}>"

    # -- nodes -----------------------------------------------------------------------------------

    @overload
    def infer(
        self,
        name: str,
        *,
        model: str | Ref[Model],
        prompt: str,
        output: type[Embedding],
        over: Ref[Table] | None = None,
        inputs: Mapping[str, Ref[Artifact]] | None = None,
        **more: Unpack[InferOptions],
    ) -> Ref[Embedding]: ...

    @overload
    def infer(
        self,
        name: str,
        *,
        model: str | Ref[Model],
        prompt: str | None = None,
        messages: Sequence[MessageLike] = (),
        over: Ref[Table],
        output: Any = None,
        tools: Sequence[Any] | None = None,
        inputs: Mapping[str, Ref[Artifact]] | None = None,
        **more: Unpack[InferOptions],
    ) -> Ref[Dataset]: ...

    @overload
    def infer(
        self,
        name: str,
        *,
        model: str | Ref[Model],
        prompt: str | None = None,
        messages: Sequence[MessageLike] = (),
        tools: Sequence[Any],
        inputs: Mapping[str, Ref[Artifact]] | None = None,
        **more: Unpack[InferOptions],
    ) -> Ref[Reply]: ...

    @overload
    def infer(
        self,
        name: str,
        *,
        model: str | Ref[Model],
        prompt: str | None = None,
        messages: Sequence[MessageLike] = (),
        output: None = None,
        inputs: Mapping[str, Ref[Artifact]] | None = None,
        **more: Unpack[InferOptions],
    ) -> Ref[Text]: ...

    @overload
    def infer(
        self,
        name: str,
        *,
        model: str | Ref[Model],
        prompt: str | None = None,
        messages: Sequence[MessageLike] = (),
        output: Any,
        inputs: Mapping[str, Ref[Artifact]] | None = None,
        **more: Unpack[InferOptions],
    ) -> Ref[Json]: ...

    def infer(
        self,
        name: str,
        *,
        model: str | Ref[Model],
        prompt: str | None = None,
        messages: Sequence[MessageLike] = (),
        over: Ref[Table] | None = None,
        output: Any = None,
        tools: Sequence[Any] | None = None,
        inputs: Mapping[str, Ref[Artifact]] | None = None,
        **more: Any,
    ) -> Ref[Any]:
        """Ask `model` by a `prompt`, or by `messages` (`ak.system`, `ak.user` ...).

        `{name}` in them is a column of `over` or one of `inputs`.
        `over=` asks once for every row (up to `max_items`, else the run fails before buying any)
        and gives the rows back with a further column, called like the node or as `column=` says.
        A row that fails for good at every provider pauses the run; with `on_error="skip"` it is
        left out, and the result says why.
        `output=` is a pydantic model or type the answer must satisfy, or `Embedding`.
        `tools=` are functions, pydantic models, LangChain's tools or such in OpenAI's form, and the
        answer is a Reply, which may call them.  Nothing here calls a tool.
        """
        if tools is not None and not tools:
            raise WrongInput(f"node {name!r} has an empty list of tools", hint="leave tools= out")
        return self._add(
            InferNode,
            name,
            kind="infer",
            model=self._edge(model) if isinstance(model, Ref) else model,
            prompt=prompt,
            messages=tuple(messages),
            over=over and self._edge(over),
            output=output_of(output),
            tools=tuple(tool_of(tool) for tool in tools or ()),
            inputs=self._edges(name, inputs),
            **more,
        )[0]

    def train(
        self,
        name: str,
        *,
        base: str,
        dataset: Ref[Table],
        method: str = "head",
        needs: Needs | None = None,
        **more: Unpack[TrainOptions],
    ) -> Ref[Model]:
        """Train on the columns `text` and `label` of `dataset`; `base` is what is tuned."""
        node = self._add(
            TrainNode,
            name,
            kind="train",
            base=base,
            dataset=self._edge(dataset),
            method=method,
            needs=needs,
            **more,
        )
        return node[0]

    def data(
        self,
        name: str,
        *,
        source: str | Path | None = None,
        sql: str | None = None,
        inputs: Mapping[str, Ref[Table]] | None = None,
        **more: Unpack[DataOptions],
    ) -> Ref[Dataset]:
        """Bring a table in (`source=`, pinned by `sha256=`) or query tables (`sql=`, `inputs=`)."""
        if (source is None) == (sql is None):
            raise WrongInput(
                f"data node {name!r} needs either source= or sql=",
                hint='write graph.data("rows", source="rows.jsonl")',
            )
        if source is not None:
            return self._add(
                SourceNode, name, kind="data", op="source", source=str(source), **more
            )[0]
        edges = self._edges(name, inputs)
        return self._add(SqlNode, name, kind="data", op="sql", sql=sql, inputs=edges, **more)[0]

    def split(
        self, name: str, table: Ref[Table], *, at: float, seed: int = 0, **more: Unpack[NodeOptions]
    ) -> tuple[Ref[Dataset], Ref[Dataset]]:
        """Part a table in two by a seeded draw: a share `at` of its rows, and the rest."""
        one, other = self._add(
            SplitNode,
            name,
            kind="data",
            op="split",
            table=self._edge(table),
            at=at,
            seed=seed,
            **more,
        )
        return one, other

    @overload
    def local(self, name: str, fn: Callable[[], R], /, **more: Unpack[NodeOptions]) -> Ref[R]: ...

    @overload
    def local(
        self, name: str, fn: Callable[[A], R], a: Ref[A], /, **more: Unpack[NodeOptions]
    ) -> Ref[R]: ...

    @overload
    def local(
        self,
        name: str,
        fn: Callable[[A, B], R],
        a: Ref[A],
        b: Ref[B],
        /,
        **more: Unpack[NodeOptions],
    ) -> Ref[R]: ...

    @overload
    def local(
        self,
        name: str,
        fn: Callable[[A, B, C], R],
        a: Ref[A],
        b: Ref[B],
        c: Ref[C],
        /,
        **more: Unpack[NodeOptions],
    ) -> Ref[R]: ...

    @overload
    def local(
        self, name: str, fn: Callable[[], Any], /, **more: Unpack[NodeOptions]
    ) -> Ref[Json]: ...

    @overload
    def local(
        self, name: str, fn: Callable[[A], Any], a: Ref[A], /, **more: Unpack[NodeOptions]
    ) -> Ref[Json]: ...

    @overload
    def local(
        self,
        name: str,
        fn: Callable[[A, B], Any],
        a: Ref[A],
        b: Ref[B],
        /,
        **more: Unpack[NodeOptions],
    ) -> Ref[Json]: ...

    @overload
    def local(
        self,
        name: str,
        fn: Callable[[A, B, C], Any],
        a: Ref[A],
        b: Ref[B],
        c: Ref[C],
        /,
        **more: Unpack[NodeOptions],
    ) -> Ref[Json]: ...

    @overload
    def local(
        self,
        name: str,
        fn: Callable[..., R],
        a: Ref[Any],
        b: Ref[Any],
        c: Ref[Any],
        d: Ref[Any],
        /,
        *refs: Ref[Any],
        **more: Unpack[NodeOptions],
    ) -> Ref[R]: ...

    @overload
    def local(
        self,
        name: str,
        fn: Callable[..., Any],
        a: Ref[Any],
        b: Ref[Any],
        c: Ref[Any],
        d: Ref[Any],
        /,
        *refs: Ref[Any],
        **more: Unpack[NodeOptions],
    ) -> Ref[Json]: ...

    def local(
        self, name: str, fn: Callable[..., Any], /, *refs: Ref[Any], **more: Unpack[NodeOptions]
    ) -> Ref[Any]:
        """Call `fn` with the artifacts of `refs`, here; it may run twice, so keep it pure.

        What it returns becomes a Json artifact, unless its return annotation names an Artifact.
        """
        args = tuple(self._edge(ref) for ref in refs)
        spec = callables.describe(fn)
        return self._add(
            LocalNode,
            name,
            {"fn": fn},
            kind="local",
            fn=spec,
            args=args,
            returns=returned_by(fn),
            **more,
        )[0]

    def request(
        self,
        name: str,
        *,
        url: str,
        method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET",
        body: Mapping[str, Any] | Sequence[Any] | str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Unpack[PaidOptions],
    ) -> Ref[Json]:
        """Send an HTTP request to an address that asks for a payment by x402.

        The answer is an object with `status`, `media_type`, and its body as `json`, `text` or
        `base64`.
        """
        return self._add(
            RequestNode,
            name,
            kind="request",
            url=url,
            method=method,
            body=body,
            headers=dict(headers or {}),
            **more,
        )[0]

    def add(self, node: NodeBase) -> Any:
        """Add a node that was built from its model; the way to use a kind of another package.

        What it reads stands in it as `ref.input`.  Returns its ref, or a tuple of refs if it has
        several outputs.  Raises UnknownKind where no installed package brings the node's kind::

            page = graph.add(FetchNode(kind="fetch", name="page", url="https://example.org"))
        """
        check_registered(node)
        refs = self._insert(node, {})
        return refs[0] if len(refs) == 1 else refs

    def include(
        self,
        other: JobGraph | FrozenGraph,
        prefix: str = "",
        *,
        bind: Mapping[str, Ref[Any]] | None = None,
    ) -> Included:
        """Add every node of another graph, `prefix` before its name; all of them, or none.

        `bind={"tickets": ref}` leaves its node `tickets` out: what read it reads `ref` instead.
        """
        frozen = other.freeze() if isinstance(other, JobGraph) else other
        if not isinstance(frozen, FrozenGraph):
            raise WrongInput(
                f"{other!r} is not a job graph",
                hint='read one with ak.JobGraph.load("graph.toml")',
            )
        bound = {name: self._edge(ref) for name, ref in (bind or {}).items()}
        nodes = moved(frozen, prefix, bound)
        new = {node.name: node for node in nodes.values()}
        for name in sorted(new.keys() & self._nodes.keys()):
            raise DuplicateNode(
                f"node {name!r} of graph {frozen.name!r} is called like one of {self.name!r}",
                hint=f'pass prefix="{frozen.name}." to include it under another name',
            )
        for node in new.values():
            check_node(node, self._nodes | new)
        self._nodes |= new
        self._functions |= {
            (nodes[name].name, place): fn
            for (name, place), fn in frozen.remembered.items()
            if name in nodes
        }
        refs = {InputRef(node=name): ref for name, ref in (bind or {}).items()}
        for name, node in nodes.items():
            refs |= {InputRef(node=name, output=r.output): r for r in self._refs_of(node)}
        return Included(frozen.name, refs)

    # -- the document ----------------------------------------------------------------------------

    def freeze(self) -> FrozenGraph:
        """Return the graph as a checked, ordered, immutable document with a digest."""
        return FrozenGraph.build(self.name, tuple(self._nodes.values()), self._functions)

    def save(self, path: str | Path) -> None:
        """Write the graph to a `.toml` or `.json` file."""
        codec.save(self.freeze(), Path(path))

    @classmethod
    def load(cls, path: str | Path) -> JobGraph:
        """Read a graph from a `.toml` or `.json` file; raises GraphError for a bad one."""
        return cls.thaw(codec.load(Path(path)))

    @classmethod
    def thaw(cls, frozen: FrozenGraph) -> JobGraph:
        """Return a graph that goes on from a frozen one."""
        graph = cls(frozen.name)
        graph._nodes = {node.name: node for node in frozen.nodes}
        graph._functions = dict(frozen.remembered)
        return graph

    def ref(self, name: str, output: int = 0) -> Ref[Any]:
        """Return the handle of a node by name, for graphs that were loaded."""
        node = self._nodes.get(name)
        if node is None or output >= len(node.outputs):
            raise UnknownInput(f"graph {self.name!r} has no output {output} of a node {name!r}")
        return Ref(self.name, name, node.outputs[output], output)

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart."""
        return codec.to_mermaid(self.freeze())

    # -- inside ----------------------------------------------------------------------------------

    def _refs_of(self, node: Node) -> tuple[Ref[Any], ...]:
        return tuple(
            Ref(self.name, node.name, kind, number) for number, kind in enumerate(node.outputs)
        )

    def _edge(self, ref: object) -> InputRef:
        if not isinstance(ref, Ref):
            raise WrongInput(
                f"{ref!r} is not a ref", hint="pass what this graph's methods returned"
            )
        if ref.graph != self.name or ref.node not in self._nodes:
            raise UnknownInput(f"{ref.node!r} is a node of another graph, {ref.graph!r}")
        return ref.input

    def _edges(self, node: str, inputs: object) -> dict[str, InputRef]:
        if not isinstance(inputs, Mapping | None):
            raise WrongInput(
                f"inputs= of node {node!r} takes names and refs, and {inputs!r} is neither",
                hint='write inputs={"rows": ref}',
            )
        return {key: self._edge(ref) for key, ref in (inputs or {}).items()}

    def _add(
        self,
        node_type: type[NodeBase],
        name: str,
        functions: Mapping[str, Function] | None = None,
        /,
        *,
        when: When | Sequence[When] | None = None,
        verify: Any = None,
        **fields: Any,
    ) -> tuple[Ref[Any], ...]:
        """Add a node of a type to the graph; returns the refs of its outputs.

        Raises WrongInput for fields that the type has not, UnknownInput for refs of other graphs.
        """
        self._check_name(name)
        conditions = listed(when)
        checks = listed(verify)
        if conditions:
            fields["when"] = tuple(self._condition(name, given) for given in conditions)
        if checks:
            fields["verify"] = tuple(check_of(name, given) for given in checks)
        for field in fields.keys() - node_type.model_fields.keys():
            raise WrongInput(
                f"node {name!r} takes no {field!r}",
                hint=f"write one of: {', '.join(keywords_of(node_type))}",
            )
        try:
            node = node_type(name=name, **fields)
        except ValidationError as wrong:
            document = {"name": name, **fields}
            raise codec.as_wrong_input(f"node {name!r}", wrong, document) from wrong
        given_functions = {
            **(functions or {}),
            **{f"when.{n}.fn": given.fn for n, given in enumerate(conditions) if given.fn},
            **{f"verify.{n}.fn": given for n, given in enumerate(checks) if callable(given)},
        }
        return self._insert(node, given_functions)

    def _insert(self, node: NodeBase, functions: Mapping[str, Function]) -> tuple[Ref[Any], ...]:
        """Add a node, with its functions by their places in it; returns the refs of its outputs."""
        self._check_name(node.name)
        check_node(node, self._nodes)
        self._nodes[node.name] = node
        self._functions |= {(node.name, place): fn for place, fn in functions.items()}
        self._functions |= installed_verifiers(node)
        return self._refs_of(node)

    def _check_name(self, name: str) -> None:
        if name in self._nodes:
            raise DuplicateNode(f"two nodes are called {name!r}")

    def _condition(self, name: str, given: object) -> dict[str, Any]:
        """Return a condition as the node's document has it; raises WrongInput for what is none."""
        if not isinstance(given, When):
            raise WrongInput(
                f"when= of node {name!r} takes conditions, and {given!r} is none",
                hint="write when=report.below(0.8), about a ref of this graph",
            )
        fn = {"fn": callables.describe(given.fn)} if given.fn else {}
        about = {"ref": self._edge(given.ref), "op": given.op, "key": given.key}
        return {**about, "value": given.value, **fn}
