"""Conditions: what a wrong answer would cost is a node that is bought, or is not."""

import hashlib
import math
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentkit.artifacts import Json
from agentkit.errors import CyclicGraph, UnknownInput, WrongInput
from agentkit.graph import callables, codec
from agentkit.graph.builder import JobGraph
from agentkit.graph.conditions import Condition
from agentkit.graph.refs import InputRef, Ref, When

REPORT = InputRef(node="report")


def condition(op: str, value: Any = None, key: str = "", **more: Any) -> Condition:
    return Condition.model_validate({"ref": REPORT, "op": op, "value": value, "key": key, **more})


def is_even(value: int) -> bool:
    return value % 2 == 0


def graph_and_report(name: str = "g") -> tuple[JobGraph, Ref[Json]]:
    graph = JobGraph(name)
    return graph, graph.infer("report", model="m", prompt="x", output=dict)


@pytest.mark.parametrize(
    ("op", "value", "met", "missed"),
    [
        ("below", 0.8, [0.79, 0, -1e300], [0.8, 1, 2**70]),
        ("above", 0.8, [0.81, 1], [0.8, 0]),
        ("at_least", 0.8, [0.8, 1], [0.79]),
        ("at_most", 0.8, [0.8, 0], [0.81]),
        ("below", "m", ["a"], ["m", "z"]),
        ("equals", "yes", ["yes"], ["no", None, 1, ["yes"], {}]),
        ("equals", 1, [1, 1.0], [True, "1", 2]),
        ("equals", True, [True], [1, 1.0, False]),
        ("equals", 0, [0], [False, None, ""]),
        ("equals", None, [None], [0, False, "", []]),
        ("differs", None, [0, False, ""], [None]),
        ("differs", 1, [True, 2], [1, 1.0]),
    ],
)
def test_each_comparison(op: str, value: Any, met: list[Any], missed: list[Any]) -> None:
    assert all(condition(op, value).holds_for(given) for given in met)
    assert not any(condition(op, value).holds_for(given) for given in missed)


@given(one=st.integers() | st.floats(allow_nan=False), other=st.integers() | st.floats(-9, 9))
def test_of_a_comparison_and_its_opposite_exactly_one_holds(one: float, other: float) -> None:
    for op, opposite in (("below", "at_least"), ("above", "at_most"), ("equals", "differs")):
        told = condition(op, other).holds_for(one), condition(opposite, other).holds_for(one)
        assert sorted(told) == [False, True]


def test_a_condition_can_be_about_one_key() -> None:
    assert condition("below", 0.8, "accuracy").holds_for({"accuracy": 0.5, "rows": 9})
    assert not condition("below", 0.8, "accuracy").holds_for({"accuracy": 0.9, "rows": 0})


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("", "0.5", '"0.5"'),  # text that looks like a number is still text
        ("", True, "true"),
        ("", None, "null"),
        ("", [0.5], "a list"),
        ("", {"accuracy": 0.5}, "an object"),
        ("", math.nan, "NaN"),
        ("accuracy", {"acuracy": 0.5}, "no key 'accuracy'"),
        ("accuracy", 0.5, "no key 'accuracy'"),
        ("accuracy", {"accuracy": "high"}, "report.accuracy"),
    ],
)
def test_what_cannot_be_compared_is_an_error_and_not_a_no(key: str, value: Any, word: str) -> None:
    with pytest.raises(WrongInput, match=word) as raised:
        condition("below", 0.8, key).holds_for(value)
    assert raised.value.hint


def test_a_misspelt_key_is_answered_with_the_keys_there_are() -> None:
    with pytest.raises(WrongInput) as raised:
        condition("below", 1, "acc").holds_for({"accuracy": 1, "rows": 2})
    assert "'accuracy', 'rows'" in raised.value.hint


def test_a_function_tells() -> None:
    even = condition("holds", fn=callables.describe(is_even))
    assert even.holds_for(4, is_even)
    assert not even.holds_for(3, is_even)
    with pytest.raises(WrongInput, match="is not loaded"):
        even.holds_for(4)


def test_a_function_that_calls_exit_ends_no_event_loop() -> None:
    with pytest.raises(RuntimeError, match="SystemExit"):
        condition("holds", fn=callables.describe(is_even)).holds_for(1, lambda _: sys.exit(0))


@pytest.mark.parametrize("answer", [None, 0, 1, "yes"])
def test_a_function_that_forgets_to_answer_is_not_a_no(answer: Any) -> None:
    with pytest.raises(WrongInput, match="returned"):
        condition("holds", fn=callables.describe(is_even)).holds_for(1, lambda _: answer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": "below"},
        {"op": "below", "value": None},
        {"op": "above", "value": True},
        {"op": "below", "value": math.nan},
        {"op": "below", "value": math.inf},
        {"op": "equals", "value": b"yes"},
        {"op": "equals", "value": Decimal(1)},
        {"op": "equals", "value": [1]},
        {"op": "equals", "value": {"a": 1}},
        {"op": "under", "value": 1},
        {"op": "holds"},
        {"op": "holds", "fn": {"module": "m", "qualname": "f"}, "value": 1},
        {"op": "below", "fn": {"module": "m", "qualname": "f"}, "value": 1},
        {"op": "below", "value": 1, "unit": "%"},
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Condition.model_validate({"ref": {"node": "report"}, **wrong})


@given(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_keeps_its_type(value: Any) -> None:
    kept = condition("equals", value)
    assert type(kept.value) is type(value)
    assert Condition.model_validate_json(kept.model_dump_json(exclude_defaults=True)) == kept
    assert kept.holds_for(value)


def test_a_condition_reads_as_a_sentence() -> None:
    assert str(condition("below", 0.8)) == "report below 0.8"
    assert str(condition("at_least", 0.8, "accuracy")) == "report.accuracy at least 0.8"
    assert str(condition("equals", "yes")) == 'report equals "yes"'
    assert str(condition("differs", None)) == "report differs null"
    assert str(condition("holds", fn=callables.describe(is_even))).endswith(":is_even")


# -- in a graph ----------------------------------------------------------------------------------


def test_a_node_waits_for_what_its_conditions_are_about() -> None:
    graph, report = graph_and_report()
    more = graph.local("more", lambda: {"a": 1})
    graph.infer("sorry", model="m", prompt="x", when=[report.below(0.8), more.above(0, key="a")])
    frozen = graph.freeze()
    assert frozen.parents["sorry"] == ("report", "more")
    assert [str(c) for c in frozen.by_name["sorry"].when] == ["report below 0.8", "more.a above 0"]
    assert list(frozen.by_name["sorry"].reads()) == []  # no data comes through a condition
    assert [what for what, _, _ in frozen.by_name["sorry"].edges()] == ["when", "when"]


def test_a_ref_says_what_is_written_down() -> None:
    graph, report = graph_and_report()
    asked = {
        "below": report.below(1, key="k"),
        "above": report.above(1, key="k"),
        "at_least": report.at_least(1, key="k"),
        "at_most": report.at_most(1, key="k"),
        "equals": report.equals(1, key="k"),
        "differs": report.differs(1, key="k"),
    }
    graph.infer("a", model="m", prompt="x", when=[*asked.values(), report.holds(is_even, key="k")])
    *compared, told = graph.freeze().by_name["a"].when
    assert compared == [condition(op, 1, "k") for op in asked]
    assert told == condition("holds", key="k", fn=callables.describe(is_even))


def test_every_builder_method_takes_conditions() -> None:
    graph, report = graph_and_report()
    only, here = report.equals("yes"), lambda report: report
    rows = graph.data("rows", source="x.jsonl", when=only)
    graph.data("query", sql="select 1", inputs={"rows": rows}, when=[only])
    graph.split("parts", rows, at=0.5, when=(only,))
    graph.train("tune", base="b", dataset=rows, when=only)
    graph.local("here", here, report, when=only)
    graph.infer("ask", model="m", prompt="x", when=only)
    conditional = [node for node in graph.freeze().nodes if node.name != "report"]
    assert all(str(node.when[0]) == 'report equals "yes"' for node in conditional)


def test_a_condition_is_part_of_what_is_asked() -> None:
    digests = set()
    for more in ({}, {"below": 0.8}, {"below": 0.9}, {"above": 0.8}):
        graph, report = graph_and_report()
        when = [getattr(report, op)(value) for op, value in more.items()]
        graph.infer("sorry", model="m", prompt="x", when=when)
        digests.add(graph.freeze().digest)
    assert len(digests) == 4


def test_a_condition_is_about_json_and_about_this_graph() -> None:
    graph, report = graph_and_report()
    rows = graph.data("rows", source="x.jsonl")
    asked: Any = When(rows, "below", 1)
    with pytest.raises(WrongInput, match="Json"):
        graph.infer("sorry", model="m", prompt="x", when=asked)
    _, foreign = graph_and_report("other")
    with pytest.raises(UnknownInput, match="other"):
        graph.infer("sorry", model="m", prompt="x", when=foreign.below(1))
    for wrong in (report, True, "report < 1", [report]):
        with pytest.raises(WrongInput, match="takes conditions"):
            graph.infer("sorry", model="m", prompt="x", when=wrong)
    with pytest.raises(WrongInput, match=r"'sorry'.*when\.0\.value"):
        graph.infer("sorry", model="m", prompt="x", when=report.below(math.nan))
    assert {node.name for node in graph.freeze().nodes} == {"report", "rows"}


def test_and_between_conditions_would_drop_one_and_is_refused() -> None:
    graph, report = graph_and_report()
    with pytest.raises(WrongInput, match="no truth") as raised:
        graph.infer("sorry", model="m", prompt="x", when=report.above(1) and report.below(2))
    assert "when=[a, b]" in raised.value.hint


def test_a_document_cannot_make_a_node_wait_for_itself() -> None:
    node = {"kind": "infer", "name": "a", "model": "m", "prompt": "", "output": {"type": "object"}}
    about = {"ref": {"node": "a"}, "op": "equals"}
    with pytest.raises(CyclicGraph, match="a -> a"):
        codec.decode({"name": "g", "nodes": [{**node, "when": [about]}]})


# -- functions -----------------------------------------------------------------------------------


def test_lambdas_of_one_line_are_not_taken_for_one_another() -> None:
    graph, report = graph_and_report()
    graph.infer("a", model="m", prompt="x", when=[report.holds(f) for f in (lambda v: v > 1, lambda v: v < 9)])  # fmt: skip  # noqa: E501
    (low, is_low), (high, is_high) = graph.freeze().conditions("a")
    assert low.holds_for(10, is_low)
    assert not high.holds_for(10, is_high)
    assert not low.holds_for(0, is_low)


def test_closures_are_not_taken_for_one_another() -> None:
    def above(limit: int) -> Any:
        return lambda value: value > limit

    graph, report = graph_and_report()
    for limit in (1, 5):
        graph.infer(f"a{limit}", model="m", prompt="x", when=report.holds(above(limit)))
    told = [c.holds_for(3, fn) for n in ("a1", "a5") for c, fn in graph.freeze().conditions(n)]
    assert told == [True, False]


def test_a_saved_condition_finds_its_function_again(tmp_path: Any) -> None:
    graph, report = graph_and_report()
    graph.infer("a", model="m", prompt="x", when=[report.above(0), report.holds(is_even)])
    graph.save(tmp_path / "g.toml")
    again = JobGraph.load(tmp_path / "g.toml").freeze()
    file = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    again.adopt(None, consent=callables.Consent.to([file]))
    assert [fn for _, fn in again.conditions("a")] == [None, is_even]
    assert again.functions() == {}  # of local nodes alone


def test_a_lambda_in_a_condition_is_supplied_again_or_missed() -> None:
    graph, report = graph_and_report()
    graph.infer("a", model="m", prompt="x", when=report.holds(lambda value: value > 1))
    frozen = graph.freeze()
    read = codec.decode(codec.encode(frozen))
    with pytest.raises(WrongInput, match="lives only in the process"):
        read.adopt(None)
    read.adopt(None, needed={"report"})
    read.adopt(frozen)
    assert read.conditions("a") == frozen.conditions("a")
