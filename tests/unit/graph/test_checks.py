"""Checks: what is lost without them is money for results that are wrong."""

from typing import Any, Literal

import pytest
from pydantic import ValidationError

from agentkit.errors import GraphError, WrongInput
from agentkit.graph import codec
from agentkit.graph.builder import JobGraph
from agentkit.graph.checks import CallableCheck, Named, Redundant, SchemaCheck
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import InferNode, PaidNode, SqlNode, TrainNode

SCHEMA: dict[str, Any] = {"type": "object", "required": ["name"]}
CHECKS = (
    SchemaCheck(check="schema", schema_=SCHEMA),
    Redundant(check="redundant", k=2, of=3),
    Named(check="named", name="lab.attested", params={"level": 3, "tags": ["a", None]}),
)


def polite(text: str) -> bool:
    return "please" in text


def one_node(**more: Any) -> FrozenGraph:
    graph = JobGraph("g")
    graph.infer("a", model="m", prompt="x", **more)
    return graph.freeze()


def paid(graph: FrozenGraph, name: str = "a") -> PaidNode:
    node = graph.by_name[name]
    assert isinstance(node, PaidNode)
    return node


def test_every_node_that_is_bought_takes_checks() -> None:
    graph = JobGraph("g")
    rows = graph.data("rows", source="x.jsonl")
    more: dict[str, Any] = {"verify": CHECKS[1]}
    graph.infer("ask", model="m", prompt="x", **more)
    graph.train("tune", base="b", dataset=rows, **more)
    graph.data("query", sql="select 1", inputs={"rows": rows}, **more)
    frozen = graph.freeze()
    assert [paid(frozen, n).replicas for n in ("ask", "tune", "query")] == [3, 3, 3]
    assert {InferNode, TrainNode, SqlNode} == {type(n) for n in frozen.nodes} - {type(frozen.by_name["rows"])}  # fmt: skip  # noqa: E501


def test_a_node_that_is_not_bought_takes_none() -> None:
    graph = JobGraph("g")
    anything: Any = polite
    rows = graph.data("mine", source="x")
    calls: list[Any] = [
        lambda: graph.data("rows", source="x", verify=polite),
        lambda: graph.split("parts", rows, at=0.5, verify=polite),
        lambda: graph.local("here", anything, verify=CHECKS[1]),
    ]
    for call in calls:
        with pytest.raises(WrongInput, match="verify"):
            call()


def test_one_check_a_function_or_a_list() -> None:
    assert paid(one_node()).verify == ()
    assert paid(one_node(verify=[])).verify == ()
    assert paid(one_node(verify=CHECKS[0])).verify == CHECKS[:1]
    given = paid(one_node(verify=[*CHECKS, polite])).verify
    assert given[:3] == CHECKS
    assert isinstance(given[3], CallableCheck)
    assert given[3].fn.qualname == "polite"


@pytest.mark.parametrize("wrong", ["schema", 3, dict, [polite, "x"], {"check": "schema"}])
def test_what_is_no_check_is_refused(wrong: Any) -> None:
    with pytest.raises(WrongInput, match="takes checks and functions") as raised:
        one_node(verify=wrong)
    assert "ak.verify" in raised.value.hint


@pytest.mark.parametrize(
    ("check", "word"),
    [
        ({"check": "schema", "schema": {"type": "objekt"}}, "schema: this is not a JSON schema"),
        ({"check": "schema"}, r"verify\.0\.schema: it is missing"),
        ({"check": "redundant", "k": 3, "of": 2}, "3 of 2 results cannot agree"),
        ({"check": "redundant", "k": 0, "of": 2}, r"verify\.0\.k"),
        ({"check": "redundant", "k": 1, "of": 10}, r"verify\.0\.of"),
        ({"check": "redundant"}, r"verify\.0\.k"),
        ({"check": "named"}, r"verify\.0\.name: it is missing"),
        ({"check": "named", "name": "n", "params": {"a": float("nan")}}, "finite"),
        ({"check": "named", "name": "n", "level": 3}, "level: this key is not known"),
        ({"check": "shema"}, "no such check: 'shema'"),
        ({}, "does not say which check"),
        ("schema", "keys and values"),
    ],
)
def test_a_bad_check_in_a_document_is_named(check: Any, word: str) -> None:
    node = {"kind": "infer", "name": "a", "model": "m", "prompt": "x", "verify": [check]}
    with pytest.raises(WrongInput, match=word) as raised:
        codec.decode({"name": "g", "nodes": [node]})
    assert "'a'" in str(raised.value)
    assert raised.value.hint


def test_a_result_is_bought_in_one_way() -> None:
    with pytest.raises(WrongInput, match="more than one redundant"):
        one_node(verify=[CHECKS[1], Redundant(check="redundant", k=1, of=2)])
    with pytest.raises(ValidationError):
        Redundant(check="redundant", k=4, of=3)


def test_the_schema_is_written_as_schema() -> None:
    document = codec.encode(one_node(verify=CHECKS[0]))
    assert document["nodes"][0]["verify"] == [{"check": "schema", "schema": SCHEMA}]
    assert codec.decode(document).digest == one_node(verify=CHECKS[0]).digest


def test_checks_are_part_of_what_is_asked() -> None:
    digests = {one_node(verify=list(CHECKS[:n])).digest for n in range(4)}
    assert len(digests) == 4


def test_functions_that_verify_are_remembered() -> None:
    graph = JobGraph("g")
    graph.infer("a", model="m", prompt="x", verify=[CHECKS[1], polite, lambda text: text == ""])
    frozen = graph.freeze()
    (_, none), (_, named), (_, made) = frozen.checks("a")
    assert none is None
    assert named is polite
    assert made
    assert made("")
    read = codec.decode(codec.encode(frozen))
    with pytest.raises(WrongInput, match="polite is not loaded"):
        read.checks("a")
    read.adopt(frozen)
    assert read.checks("a") == frozen.checks("a")


def test_a_node_that_is_not_bought_has_no_checks() -> None:
    graph = JobGraph("g")
    graph.data("rows", source="x")
    assert graph.freeze().checks("rows") == ()


def test_null_in_a_parameter_is_refused_where_it_would_be_lost(tmp_path: Any) -> None:
    graph = JobGraph("g")
    graph.infer("a", model="m", prompt="x", verify=CHECKS[2])
    path = tmp_path / "g.toml"
    with pytest.raises(WrongInput, match="null") as raised:
        graph.save(path)
    assert "g.json" in raised.value.hint
    assert not path.exists()
    graph.save(tmp_path / "g.json")
    assert JobGraph.load(tmp_path / "g.json").freeze().digest == graph.freeze().digest


def test_an_output_that_may_be_null_is_refused_by_toml_alone(tmp_path: Any) -> None:
    graph = JobGraph("g")
    graph.infer("a", model="m", prompt="x", output=Literal["yes", None])
    with pytest.raises(GraphError, match="null"):
        graph.save(tmp_path / "g.toml")
