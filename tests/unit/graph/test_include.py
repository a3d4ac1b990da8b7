"""One graph within another."""

from typing import Any

import pytest

from agentkit.artifacts import Dataset, Json, Table, Text
from agentkit.errors import DuplicateNode, GraphError, UnknownInput, WrongInput
from agentkit.graph.builder import JobGraph
from agentkit.graph.checks import Redundant
from agentkit.graph.included import Included
from agentkit.graph.nodes import InferNode, SqlNode, TrainNode
from agentkit.graph.refs import InputRef, Ref


def shout(text: Text) -> Json:
    return Json.dump(text.text.upper())


def labelling() -> JobGraph:
    graph = JobGraph("labelling")
    tickets = graph.data("tickets", source="tickets.jsonl")
    clean = graph.data("clean", sql="select * from t", inputs={"t": tickets})
    labels = graph.infer("label", model="m", over=clean, prompt="{text}", max_items=9)
    train, held = graph.split("parts", labels, at=0.5)
    tuned = graph.train("tune", base="b", dataset=train)
    graph.infer("check", model=tuned, over=held, prompt="{text} {label}")
    report = graph.infer("report", model="m", prompt="x", output=dict)
    graph.infer(
        "sorry",
        model="m",
        prompt="{why}",
        inputs={"why": report},
        when=[report.below(0.8), report.holds(lambda value: value != 0.5)],
        verify=[lambda text: bool(text), Redundant(check="redundant", k=1, of=2)],
    )
    graph.local("shout", lambda text: text, graph.infer("hi", model="m", prompt="x"))
    return graph


def snapshot(graph: JobGraph) -> str:
    return graph.freeze().model_dump_json()


def test_everything_comes_under_its_new_name() -> None:
    graph = JobGraph("main")
    graph.include(labelling(), prefix="a.")
    frozen, other = graph.freeze(), labelling().freeze()
    assert set(frozen.by_name) == {f"a.{name}" for name in other.by_name}
    for name, above in other.parents.items():
        assert frozen.parents[f"a.{name}"] == tuple(f"a.{parent}" for parent in above)
    query, sorry = frozen.by_name["a.clean"], frozen.by_name["a.sorry"]
    assert isinstance(query, SqlNode)
    assert isinstance(sorry, InferNode)
    assert query.inputs == {"t": InputRef(node="a.tickets")}  # what the query calls it stays
    assert sorry.inputs == {"why": InputRef(node="a.report")}
    assert [str(condition.ref) for condition in sorry.when] == ["a.report", "a.report"]


def test_a_column_keeps_the_name_that_others_read_it_by() -> None:
    graph = JobGraph("main")
    included = graph.include(labelling(), prefix="a.")
    again = JobGraph("again")
    again.include(graph, prefix="b.")
    for frozen, name in ((graph.freeze(), "a.label"), (again.freeze(), "b.a.label")):
        node = frozen.by_name[name]
        assert isinstance(node, InferNode)
        assert node.adds == "label"
    tune = graph.freeze().by_name[included["tune"].node]
    assert isinstance(tune, TrainNode)
    assert tune.label == "label"


def test_without_a_prefix_it_is_the_same_graph() -> None:
    graph = JobGraph("labelling")
    graph.include(labelling())
    assert graph.freeze().digest == labelling().freeze().digest


def test_functions_ride_along() -> None:
    graph = JobGraph("main")
    graph.include(labelling(), prefix="a.")
    frozen = graph.freeze()
    frozen.adopt(None)  # every lambda is here
    assert frozen.functions()["a.shout"]("x") == "x"
    (_, none), (condition, fn) = frozen.conditions("a.sorry")
    assert none is None
    assert not condition.holds_for(0.5, fn)
    (_, accepts), _ = frozen.checks("a.sorry")
    assert accepts
    assert not accepts("")


def test_functions_ride_along_with_a_frozen_graph() -> None:
    graph = JobGraph("main")
    graph.include(labelling().freeze(), prefix="a.")
    graph.freeze().adopt(None)
    JobGraph.thaw(labelling().freeze()).freeze().adopt(None)


def test_included_finds_the_refs_of_here() -> None:
    other = JobGraph("other")
    rows = other.data("rows", source="x.jsonl")
    one, two = other.split("parts", rows, at=0.5)
    graph = JobGraph("main")
    included = graph.include(other, prefix="o.")
    assert included[two] == Ref("main", "o.parts", Dataset, 1)
    assert included[one] == included["parts"] == Ref("main", "o.parts", Dataset, 0)
    graph.train("tune", base="b", dataset=included[two])
    assert graph.freeze().parents["tune"] == ("o.parts",)
    assert repr(included) == "<Included 'other': rows, parts, parts[1]>"


def test_included_refuses_what_was_not_included() -> None:
    other, graph = JobGraph("other"), JobGraph("main")
    other.data("rows", source="x.jsonl")
    included: Included = graph.include(other, prefix="o.")
    foreign = JobGraph("third").data("rows", source="x.jsonl")
    for wrong in ("parts", "o.rows", foreign):
        with pytest.raises(UnknownInput, match="'other'"):
            included[wrong]


# -- bind ----------------------------------------------------------------------------------------


def test_a_bound_node_is_left_out_and_read_from_here() -> None:
    graph = JobGraph("main")
    mine = graph.data("mine", source="mine.jsonl")
    included = graph.include(labelling(), prefix="a.", bind={"tickets": mine})
    frozen = graph.freeze()
    assert "a.tickets" not in frozen.by_name
    assert frozen.parents["a.clean"] == ("mine",)
    assert included["tickets"] == mine


def test_the_function_of_a_bound_node_stays_behind() -> None:
    graph = JobGraph("main")
    mine = graph.infer("mine", model="m", prompt="x", output=dict)
    graph.include(labelling(), prefix="a.", bind={"shout": mine})
    assert {name for name, _ in graph.freeze().remembered} == {"a.sorry"}


def test_a_condition_follows_a_bound_node() -> None:
    graph = JobGraph("main")
    mine = graph.infer("mine", model="m", prompt="x", output=dict)
    graph.include(labelling(), prefix="a.", bind={"report": mine})
    frozen = graph.freeze()
    assert {str(condition.ref) for condition in frozen.by_name["a.sorry"].when} == {"mine"}
    assert frozen.parents["a.sorry"] == ("mine",)
    frozen.adopt(None)


def refused(error: type[GraphError], word: str, graph: JobGraph, *args: Any, **more: Any) -> None:
    """See that an include is refused and leaves nothing behind."""
    before = snapshot(graph)
    with pytest.raises(error, match=word) as raised:
        graph.include(*args, **more)
    assert raised.value.hint
    assert snapshot(graph) == before
    assert set(graph.freeze().remembered) == set(JobGraph.thaw(graph.freeze())._functions)
    assert not any(name.startswith("a.") for name, _ in graph.freeze().remembered)


def main() -> tuple[JobGraph, Ref[Dataset], Ref[Text]]:
    graph = JobGraph("main")
    return graph, graph.data("mine", source="x"), graph.infer("text", model="m", prompt="x")


def test_what_is_bound_must_be_there_and_fit() -> None:
    graph, mine, text = main()
    other = labelling()
    refused(UnknownInput, "'ticket'", graph, other, "a.", bind={"ticket": mine})
    refused(WrongInput, "Table", graph, other, "a.", bind={"tickets": text})
    refused(WrongInput, "Json", graph, other, "a.", bind={"report": text})
    refused(WrongInput, "output 1", graph, other, "a.", bind={"parts": mine})
    refused(WrongInput, "not a ref", graph, other, "a.", bind={"tickets": "mine"})
    foreign: Ref[Table] = Ref("third", "mine", Table)
    refused(UnknownInput, "third", graph, other, "a.", bind={"tickets": foreign})


def test_a_name_is_used_once() -> None:
    graph, _, _ = main()
    other = JobGraph("other")
    other.data("first", source="x")
    other.data("mine", source="x")
    with pytest.raises(DuplicateNode, match=r"'mine' of graph 'other'.*'main'") as raised:
        graph.include(other)
    assert "prefix=" in raised.value.hint
    assert "first" not in graph.freeze().by_name
    refused(DuplicateNode, "'mine'", graph, other)
    graph.include(other, prefix="o.")
    refused(DuplicateNode, "o.first", graph, other, "o.")


@pytest.mark.parametrize("prefix", ["1", "a b", "x" * 64])
def test_a_prefix_that_makes_no_name_is_refused(prefix: str) -> None:
    graph, _, _ = main()
    refused(WrongInput, "name", graph, labelling(), prefix)


def test_an_empty_graph_is_refused() -> None:
    graph, _, _ = main()
    refused(GraphError, "no nodes", graph, JobGraph("empty"))


def test_a_graph_can_be_included_in_itself() -> None:
    graph = labelling()
    graph.include(graph, prefix="again.")
    frozen = graph.freeze()
    assert len(frozen.nodes) == 2 * len(labelling().freeze().nodes)
    frozen.adopt(None)
