"""Graphs nobody wrote: what is written down reads back, and what is included is all there."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.artifacts import Dataset, Embedding, Json, Model
from agentkit.errors import DuplicateNode, GraphError
from agentkit.graph import codec
from agentkit.graph.builder import JobGraph
from agentkit.graph.checks import Named, Redundant, SchemaCheck
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import Timeouts
from agentkit.graph.refs import Ref, When

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=12)
scalars = st.none() | st.booleans() | numbers | texts
plain = st.recursive(
    st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,6}", fullmatch=True)
seconds = st.floats(0.001, 1e9)
timeouts = seconds | st.builds(
    Timeouts, **{stage: st.none() | seconds for stage in Timeouts.model_fields}
)
schemas = st.builds(SchemaCheck, check=st.just("schema"), schema=st.fixed_dictionaries({"const": plain}))  # fmt: skip  # noqa: E501
redundants = st.integers(1, 9).flatmap(
    lambda of: st.builds(
        Redundant, check=st.just("redundant"), k=st.integers(1, of), of=st.just(of)
    )
)
plugins = st.builds(
    Named,
    check=st.just("named"),
    name=texts.filter(bool),
    params=st.dictionaries(texts, plain, max_size=2),
)


def always(value: Any) -> bool:
    return True


def count(table: Dataset) -> Json:
    return Json.dump(len(table.rows()))


accepting = st.sampled_from([always, lambda value: value is None])


@st.composite
def conditions(draw: st.DrawFn, about: list[Ref[Json]]) -> list[When]:
    def one(ref: Ref[Json]) -> When:
        op = draw(st.sampled_from(["below", "above", "at_least", "at_most", "equals", "differs"]))
        key = draw(texts)
        if draw(st.integers(0, 4)) == 0:
            return ref.holds(draw(st.sampled_from([always, lambda value: bool(value)])), key=key)
        wanted = scalars if op in ("equals", "differs") else numbers | texts
        made: When = getattr(ref, op)(draw(wanted), key=key)
        return made

    return [one(draw(st.sampled_from(about))) for _ in range(draw(st.integers(0, 3)))]


@st.composite
def graphs(draw: st.DrawFn, name: str = "drawn") -> JobGraph:
    graph = JobGraph(name)
    tables: list[Ref[Dataset]] = [graph.data("rows", source=draw(texts))]
    values: list[Ref[Json]] = [graph.local("first", count, tables[0])]
    tables += graph.split("base", tables[0], at=0.5)
    models: list[Ref[Model]] = []
    for at, stem in enumerate(draw(st.lists(names, max_size=6))):
        node = f"{stem}{at}"
        table = draw(st.sampled_from(tables))
        more: dict[str, Any] = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "cache": st.booleans(),
                    "approve": st.booleans(),
                    "timeout": timeouts,
                    "retries": st.integers(0, 20),
                },
            )
        )
        more["when"] = draw(conditions(values))
        checks = draw(st.lists(schemas | plugins | accepting, max_size=2))
        bought = {**more, "verify": [*checks, *draw(st.lists(redundants, max_size=1))]}
        model: Any = draw(st.sampled_from(["m", *models]))
        match draw(st.integers(0, 6)):
            case 0:
                tables.append(graph.data(node, source=draw(texts), **more))
            case 1:
                tables.append(graph.data(node, sql=draw(texts), inputs={"t": table}, **bought))
            case 2:
                tables.extend(graph.split(node, table, at=0.5, **more))
            case 3:
                models.append(graph.train(node, base="b", dataset=table, **bought))
            case 4:
                tables.append(graph.infer(node, model=model, prompt="{x}", over=table, **bought))
            case 5:
                graph.infer(node, model="e", prompt="{x}", over=table, output=Embedding, **bought)
            case 6:
                ask = {"v": draw(st.sampled_from(values))}
                values.append(
                    graph.infer(node, model=model, prompt="{v}", inputs=ask, output=dict, **bought)
                )
    return graph


@given(graph=graphs())
def test_every_graph_reads_back(tmp_path_factory: pytest.TempPathFactory, graph: JobGraph) -> None:
    frozen = graph.freeze()
    folder = tmp_path_factory.mktemp("graphs")
    for suffix in ("toml", "json"):
        path = folder / f"g.{suffix}"
        graph.save(path)
        again = JobGraph.load(path).freeze()
        assert again.nodes == frozen.nodes
        assert (again.digest, again.shape) == (frozen.digest, frozen.shape)
        again.adopt(frozen)
    journalled = FrozenGraph.model_validate_json(frozen.model_dump_json(exclude_defaults=True))
    assert journalled.digest == frozen.digest


@given(graph=graphs())
def test_every_drawing_has_an_arrow_for_every_edge_and_no_odd_mark(graph: JobGraph) -> None:
    frozen = graph.freeze()
    nodes, arrows, tests = 0, 0, 0
    for line in frozen_lines(frozen):
        nodes += line.endswith('"]')
        arrows += "-->" in line.split("|")[0]
        tests += "-.->" in line
        if "-.->" in line:
            before, label, after = line.split("|")
            assert before.startswith("  n")
            assert before.endswith(" -.->")
            assert not set(label) & set('"[](){}<>|\n\r%`')
            assert after[2:].isdigit()
    assert nodes == len(frozen.nodes)
    assert arrows == sum(len({ref.node for _, ref, _ in n.reads()}) for n in frozen.nodes)
    assert tests == sum(len(node.when) for node in frozen.nodes)


def frozen_lines(frozen: FrozenGraph) -> list[str]:
    first, *lines, last = codec.to_mermaid(frozen).split("\n")
    assert (first, last) == ("flowchart LR", "")
    return lines


@given(other=graphs("other"), prefix=st.sampled_from(["", "a.", "x-"]))
def test_all_of_a_graph_is_included(other: JobGraph, prefix: str) -> None:
    inner = other.freeze()
    graph, twin = JobGraph("other"), JobGraph("other")
    included = graph.include(other, prefix)
    twin.include(inner, prefix)
    outer = graph.freeze()
    assert outer.digest == twin.freeze().digest
    assert (outer.digest == inner.digest) == (prefix == "")
    assert [n.name for n in outer.nodes] == [prefix + n.name for n in inner.nodes]
    for node in inner.nodes:
        assert included[node.name].node == prefix + node.name
        assert outer.parents[prefix + node.name] == tuple(prefix + p for p in inner.parents[node.name])  # fmt: skip  # noqa: E501
        here = [fn for _, fn in outer.conditions(prefix + node.name)]
        assert here == [fn for _, fn in inner.conditions(node.name)]
    outer.adopt(None)
    assert other.freeze().digest == inner.digest  # which was only read


@given(other=graphs("other"), graph=graphs("main"))
def test_all_of_a_graph_is_included_or_nothing(other: JobGraph, graph: JobGraph) -> None:
    before = graph.freeze()
    with pytest.raises(DuplicateNode):  # both have rows
        graph.include(other)
    bound: dict[str, Any] = {"rows": graph.ref("first")}  # no table
    with pytest.raises(GraphError):
        graph.include(other, "a.", bind=bound)
    after = graph.freeze()
    assert (after.nodes, after.remembered) == (before.nodes, before.remembered)
    graph.include(other, "a.", bind={"rows": graph.ref("rows")})
    assert len(graph.freeze().nodes) == len(before.nodes) + len(other.freeze().nodes) - 1
