"""The identity of a graph: what a run in flight is known by, and what it may go on with."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from agentkit.artifacts import Json
from agentkit.errors import WrongInput
from agentkit.graph import codec
from agentkit.graph.builder import JobGraph
from agentkit.graph.callables import CallableSpec, Consent
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import InferNode, Timeouts
from agentkit.graph.parts import _inside, with_parts
from agentkit.graph.refs import InputRef

PLACES = {"here": "fn", "ask": "when.0.fn", "buy": "verify.1.fn"}


def parts_of(value: Any, kind: type[Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (place, part) for every `kind` in a value, as in `("when.0.fn", spec)`."""
    if isinstance(value, kind):
        yield place, value
        return
    for key, inner in _inside(value):
        yield from parts_of(inner, kind, f"{place}.{key}" if place else str(key))


def one() -> Json:
    return Json.dump(1)


def is_one(value: int) -> bool:
    return value == 1


def functions() -> JobGraph:
    graph = JobGraph("functions")
    here = graph.local("here", one)
    graph.infer("ask", model="m", prompt="x", when=here.holds(is_one))
    graph.infer("buy", model="m", prompt="x", verify=[lambda text: bool(text), is_one])
    return graph


def edited(graph: FrozenGraph, node: str, **change: str) -> FrozenGraph:
    """Return the graph with the function of one node changed."""
    place = PLACES[node]
    spec = graph.by_name[node].callables()[place]
    nodes = tuple(
        with_parts(n, CallableSpec, lambda s: s.model_copy(update=change) if s == spec else s)
        if n.name == node
        else n
        for n in graph.nodes
    )
    return FrozenGraph(name=graph.name, nodes=nodes)


@pytest.mark.parametrize("node", PLACES)
def test_where_a_file_stands_is_not_identity(node: str) -> None:
    graph = functions().freeze()
    moved = edited(graph, node, file="/somewhere/else.py")
    assert moved.nodes != graph.nodes
    assert (moved.digest, moved.shape) == (graph.digest, graph.shape)


@pytest.mark.parametrize("node", PLACES)
def test_what_a_function_says_is_identity_and_not_shape(node: str) -> None:
    graph = functions().freeze()
    other = edited(graph, node, sha256="00" * 32)
    assert other.digest != graph.digest
    assert other.shape == graph.shape
    assert graph.same_but_for_code(other)
    renamed = edited(graph, node, qualname="another")
    assert renamed.shape == graph.shape  # a mended function may have another name
    assert graph.same_but_for_code(renamed)
    assert not graph.same_but_for_code(functions().freeze())


def test_a_field_added_later_leaves_the_digest_alone() -> None:
    class LaterNode(InferNode):
        tempo: str = "slow"
        more: list[str] = Field(default_factory=list)

    node = {"kind": "infer", "name": "a", "model": "m", "prompt": "x"}
    now, later = InferNode.model_validate(node), LaterNode.model_validate(node)
    assert now.identity() == later.identity() == node
    assert LaterNode.model_validate({**node, "tempo": "fast"}).identity() != node


def test_the_digest_does_not_depend_on_how_the_graph_was_put_down() -> None:
    def made(*names: str) -> str:
        graph = JobGraph("g")
        for name in names:
            graph.data(name, source=f"{name}.jsonl")
        return graph.freeze().digest

    assert made("a", "b") == made("b", "a") != made("a", "c")


# -- adopt ---------------------------------------------------------------------------------------


def test_a_graph_takes_the_functions_of_its_equal() -> None:
    graph = functions().freeze()
    read = codec.decode(codec.encode(graph))
    with pytest.raises(WrongInput, match="lives only in the process"):
        read.adopt(None)
    read.adopt(graph)
    assert read.checks("buy") == graph.checks("buy")


def test_only_what_is_still_needed_must_be_there() -> None:
    read = codec.decode(codec.encode(functions().freeze()))
    file = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    read.adopt(None, needed={"here", "ask"}, consent=Consent.to([file]))
    read.adopt(None, needed=())
    with pytest.raises(WrongInput, match="lives only in the process"):
        read.adopt(None, needed={"buy"})


@pytest.mark.parametrize("node", PLACES)
def test_changed_code_is_not_adopted_and_named(node: str) -> None:
    graph = functions().freeze()
    other = edited(graph, node, sha256="00" * 32)
    with pytest.raises(WrongInput, match=f"'{node}' have changed") as raised:
        graph.adopt(other)
    assert raised.value.hint


def test_another_graph_is_not_adopted() -> None:
    other = functions()
    other.infer("more", model="m", prompt="x")
    graph = functions().freeze()
    with pytest.raises(WrongInput, match="is not the one of the run"):
        graph.adopt(other.freeze())
    assert ("more", "fn") not in graph.remembered


# -- parts of nodes ------------------------------------------------------------------------------


def test_no_edge_of_any_node_is_forgotten() -> None:
    class OddNode(InferNode):
        deep: dict[str, tuple[InputRef, ...]] = {}

    ref = InputRef(node="a")
    node = OddNode(
        kind="infer",
        name="n",
        model=ref,
        prompt="",
        over=ref,
        inputs={"x": ref},
        deep={"y": (ref,)},
    )
    moved = node.with_refs(lambda _: InputRef(node="b", output=1))
    assert [place for place, _ in parts_of(node, InputRef)] == ["model", "inputs.x", "over", "deep.y.0"]  # fmt: skip  # noqa: E501
    assert {r for _, r in parts_of(moved, InputRef)} == {InputRef(node="b", output=1)}
    assert {r for _, r in parts_of(node, InputRef)} == {ref}


def test_a_schema_that_looks_like_a_ref_is_left_alone() -> None:
    schema: dict[str, Any] = {"properties": {"node": {"type": "string"}}, "default": {"node": "a"}}
    node = InferNode(kind="infer", name="n", model="m", prompt="", output=schema)
    assert node.with_refs(lambda _: InputRef(node="b")).output == schema


# -- what every node takes -----------------------------------------------------------------------


def test_a_number_bounds_the_execution() -> None:
    graph = JobGraph("g")
    graph.infer("none", model="m", prompt="x")
    graph.infer("number", model="m", prompt="x", timeout=3)
    graph.infer("stages", model="m", prompt="x", timeout=Timeouts(submit=1, execute=2.5))
    limits = {node.name: node.limits for node in graph.freeze().nodes}
    assert limits["none"] == Timeouts()
    assert limits["number"] == Timeouts(execute=3)
    assert limits["stages"] == Timeouts(submit=1, execute=2.5)


@pytest.mark.parametrize(
    "wrong",
    [0, -1, float("inf"), float("nan"), "soon", {"submit": 0}, {"store": float("inf")}, {"x": 1}],
)
def test_a_timeout_that_never_or_always_comes_is_refused(wrong: Any) -> None:
    graph = JobGraph("g")
    with pytest.raises(WrongInput, match="'a': timeout"):
        graph.infer("a", model="m", prompt="x", timeout=wrong)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"timeout": {"submit": -1}}, "'a': timeout.submit: .*greater than 0"),
        ({"timeout": {"sumbit": 1}}, "'a': timeout.sumbit: this key is not known"),
        ({"timeout": -1}, "'a': timeout: .*greater than 0"),
        ({"model": {}}, "'a': model.node: it is missing"),
        ({"inputs": {"float": 5}}, "'a': inputs.float: it must be keys and values"),
        ({"retries": -1, "retrys": 3}, "'a': retrys: this key is not known"),
    ],
)
def test_the_field_at_fault_is_named_as_it_was_written(more: dict[str, Any], word: str) -> None:
    node = {"kind": "infer", "name": "a", "model": "m", "prompt": "x", **more}
    with pytest.raises(WrongInput, match=word):
        codec.decode({"name": "g", "nodes": [node]})


def test_what_is_not_used_is_not_written() -> None:
    graph = JobGraph("g")
    graph.infer("a", model="m", prompt="x", cache=False, approve=False, when=[], timeout=None)
    assert codec.encode(graph.freeze())["nodes"] == [
        {"kind": "infer", "name": "a", "model": "m", "prompt": "x"}
    ]


def test_a_column_is_for_answers_beside_rows() -> None:
    graph = JobGraph("g")
    rows = graph.data("rows", source="x")
    graph.infer("a", model="m", prompt="x", over=rows, column="topic")
    node = graph.freeze().by_name["a"]
    assert isinstance(node, InferNode)
    assert node.adds == "topic"
    with pytest.raises(WrongInput, match="column"):
        graph.infer("b", model="m", prompt="x", column="topic")


def test_what_has_no_name_cannot_be_in_a_graph() -> None:
    from functools import partial

    with pytest.raises(WrongInput, match="no name"):
        JobGraph("g").local("n", partial(one))
