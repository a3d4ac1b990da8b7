"""A node's model is found by its kind; kinds of other packages are found by entry point."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

import pytest
from support import outside_kinds

from agentkit.artifacts import Dataset, Json, Text
from agentkit.errors import GraphError, PlanError, UnknownKind
from agentkit.graph import codec, installed
from agentkit.graph.builder import JobGraph
from agentkit.graph.callables import describe
from agentkit.graph.conditions import Condition
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import Edges, LocalNode, NodeBase, PaidNode
from agentkit.graph.refs import InputRef
from agentkit.graph.registry import OUR_MODELS
from agentkit.graph.unknown import UnknownNode
from agentkit.market.plan import Plan

HOMES = Path(__file__).parents[2] / "homes"


class Forecast(PaidNode):
    kind: Literal["forecast"]
    place: InputRef
    days: int = 3

    def reads(self) -> Edges:
        yield "place", self.place, Text

    @property
    def outputs(self) -> tuple[type[Json], ...]:
        return (Json,)


class Halves(NodeBase):
    kind: Literal["data"]
    op: Literal["halves"]
    table: InputRef

    def reads(self) -> Edges:
        yield "table", self.table, Dataset

    @property
    def outputs(self) -> tuple[type[Dataset], ...]:
        return (Dataset, Dataset)


class ForecastKind:
    node_type = Forecast


class HalvesKind:
    node_type = Halves


class Packages:
    """Installed packages of kinds; `bring` installs one, and counts how often it is loaded."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._points: list[EntryPoint] = []
        self.loaded: list[str] = []
        patch.setattr(installed, "entry_points", lambda group: list(self._points))

    def bring(self, name: str, value: Any) -> None:
        module = f"toy_{len(self._points)}"
        packages = self

        class Loading(types.ModuleType):
            def __getattr__(self, attribute: str) -> Any:
                if attribute != "target":
                    raise AttributeError(attribute)
                packages.loaded.append(name)
                if isinstance(value, BaseException):
                    raise value
                return value

        self._patch.setitem(sys.modules, module, Loading(module))
        self._points.append(EntryPoint(name, f"{module}:target", installed.GROUP))
        self.forget()

    @staticmethod
    def forget() -> None:
        installed._by_name.cache_clear()
        installed._loaded.cache_clear()


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    made = Packages(monkeypatch)
    made.forget()
    yield made
    monkeypatch.undo()
    made.forget()


def forecasting() -> JobGraph:
    graph = JobGraph("forecasting")
    place = graph.infer("place", model="m", prompt="Where?")
    graph.add(Forecast(kind="forecast", name="weather", place=place.input, days=5))
    return graph


def test_every_model_of_ours_is_found_by_its_tag() -> None:
    assert OUR_MODELS["local", ""] is LocalNode
    assert {op for kind, op in OUR_MODELS if kind == "data"} == {"source", "sql", "split"}
    assert all(model.tag == tag for tag, model in OUR_MODELS.items())


def test_a_kind_with_a_default_would_not_be_written_and_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Lost\.kind has a default"):

        class Lost(NodeBase):
            kind: Literal["lost"] = "lost"


# -- kinds that are installed --------------------------------------------------------------------


def test_a_node_of_another_package_is_added_saved_and_read(
    packages: Packages, tmp_path: Path
) -> None:
    packages.bring("forecast", ForecastKind)
    graph = forecasting()
    graph.save(tmp_path / "g.toml")
    again = codec.load(tmp_path / "g.toml")
    assert type(again.by_name["weather"]) is Forecast
    assert again.digest == graph.freeze().digest
    assert FrozenGraph.model_validate_json(again.model_dump_json()) == again
    assert packages.loaded == ["forecast"]
    assert "weather<br/>forecast" in graph.to_mermaid()


def test_refs_of_added_nodes_are_as_the_methods_give_them(packages: Packages) -> None:
    packages.bring("forecast", ForecastKind())
    packages.bring("data.halves", HalvesKind)
    graph = JobGraph("refs")
    place = graph.infer("place", model="m", prompt="Where?")
    weather = graph.add(Forecast(kind="forecast", name="weather", place=place.input))
    assert weather.type is Json
    rows = graph.data("rows", source="x.csv")
    one, other = graph.add(Halves(kind="data", op="halves", name="halves", table=rows.input))
    assert (one.output, other.output) == (0, 1)
    graph.infer("say", model="m", prompt="{w}", inputs={"w": weather}, over=other)
    graph.freeze()


def test_nothing_is_loaded_before_its_kind_is_named(packages: Packages) -> None:
    packages.bring("forecast", ForecastKind)
    packages.bring("other", ForecastKind)
    graph = JobGraph("plain")
    graph.infer("a", model="m", prompt="x")
    codec.decode(codec.encode(graph.freeze()))
    assert packages.loaded == []


def test_an_error_in_a_field_of_another_package_is_named(packages: Packages) -> None:
    packages.bring("forecast", ForecastKind)
    node = {"kind": "forecast", "name": "w", "place": {"node": "p"}, "days": "many"}
    with pytest.raises(GraphError, match="node 'w': days: Input should be a valid integer"):
        codec.decode({"name": "g", "nodes": [node]})
    del node["place"]
    with pytest.raises(GraphError, match="node 'w'"):
        codec.decode({"name": "g", "nodes": [{**node, "days": 1}]})


def test_the_edges_of_added_nodes_are_checked(packages: Packages) -> None:
    packages.bring("forecast", ForecastKind)
    graph = JobGraph("g")
    rows = graph.data("rows", source="x.csv")
    with pytest.raises(GraphError, match="must be a Text"):
        graph.add(Forecast(kind="forecast", name="w", place=rows.input))
    with pytest.raises(GraphError, match="'gone'"):
        graph.add(Forecast(kind="forecast", name="w", place=InputRef(node="gone")))
    with pytest.raises(GraphError, match="two nodes are called 'rows'"):
        graph.add(Forecast(kind="forecast", name="rows", place=rows.input))


# -- kinds that are not --------------------------------------------------------------------------


def test_a_node_without_a_registered_kind_is_not_added(packages: Packages) -> None:
    with pytest.raises(UnknownKind, match="'weather' is a Forecast") as raised:
        forecasting()
    assert "'agentkit.kinds'" in raised.value.hint
    packages.bring("forecast", ForecastKind)

    class Mine(Forecast):
        more: int = 0

    with pytest.raises(UnknownKind, match="Mine"):
        JobGraph("g").add(Mine(kind="forecast", name="m", place=InputRef(node="p")))


def reading_an_excerpt() -> str:
    """Read a graph of the how-to's kind; returns what is wrong with it."""
    with pytest.raises(GraphError) as raised:
        codec.decode({"name": "g", "nodes": [{"kind": "excerpt", "name": "a"}]})
    return str(raised.value)


@pytest.mark.parametrize("named", [True, False])
def test_a_package_that_came_with_the_folder_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, packages: Packages, tmp_path: Path, named: bool
) -> None:
    """Nobody installed it: a stranger's graph would run its code as soon as it is read."""
    monkeypatch.setattr(installed, "entry_points", entry_points)
    outside_kinds.install(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path) if named else "")
    packages.forget()
    assert "there is no such kind: 'excerpt'" in reading_an_excerpt()
    assert "agentkit_translate" not in sys.modules


def test_a_package_on_the_path_is_loaded(
    monkeypatch: pytest.MonkeyPatch, packages: Packages, tmp_path: Path
) -> None:
    monkeypatch.setattr(installed, "entry_points", entry_points)
    outside_kinds.install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    packages.forget()
    assert "it is missing" in reading_an_excerpt()  # the model was found, and wants its fields
    assert sys.modules.pop("agentkit_translate")


@pytest.mark.parametrize(
    ("kind", "entry"), [({"kind": "fly"}, "'fly'"), ({"kind": "data", "op": "fly"}, "'data.fly'")]
)
def test_an_unknown_kind_is_refused_with_the_entry_point_to_install(
    packages: Packages, kind: dict[str, str], entry: str
) -> None:
    document = {"name": "g", "nodes": [{"name": "a", **kind}]}
    with pytest.raises(UnknownKind, match=r"node 'a': there is no such (kind|op): 'fly'") as raised:
        codec.decode(document)
    assert f"called {entry}" in raised.value.hint
    assert '"infer"' in raised.value.hint or '"split"' in raised.value.hint


@pytest.mark.parametrize(
    ("brought", "told"),
    [
        ([ForecastKind, ForecastKind], "two packages bring the kind 'forecast'"),
        ([RuntimeError("no GPU")], "cannot be loaded: RuntimeError: no GPU"),
        ([SystemExit(1)], "cannot be loaded: RuntimeError"),
        ([HalvesKind], 'has no node_type with kind: Literal["forecast"]'),
        (["neither"], "has no node_type"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_when_its_node_is(
    packages: Packages, brought: list[Any], told: str
) -> None:
    for value in brought:
        packages.bring("forecast", value)
    document = {"kind": "forecast", "name": "w", "place": {"node": "p"}}
    read = FrozenGraph.model_validate({"name": "g", "nodes": [document]})  # a journal can be read
    assert read.nodes[0].kind == "forecast"
    with pytest.raises(UnknownKind) as raised:
        read.adopt(None)
    assert told in str(raised.value)
    assert raised.value.hint


def test_an_unknown_node_keeps_its_document_its_digest_and_every_byte(packages: Packages) -> None:
    packages.bring("forecast", ForecastKind)
    graph = JobGraph("g")
    place = graph.infer("place", model="m", prompt="Where?")
    report = graph.infer("report", model="m", prompt="x", output=dict)
    function = describe(test_refs_of_added_nodes_are_as_the_methods_give_them)
    when = Condition(ref=report.input, op="holds", fn=function)
    fields = {"place": place.input, "days": 5, "retries": 4, "when": (when,)}
    graph.add(Forecast(kind="forecast", name="weather", **fields))
    frozen = graph.freeze()
    text = frozen.model_dump_json(exclude_defaults=True)
    packages._points.clear()
    packages.forget()
    kept = FrozenGraph.model_validate_json(text)
    assert isinstance(kept.by_name["weather"], UnknownNode)
    assert kept.model_dump_json(exclude_defaults=True) == text
    assert (kept.digest, kept.shape) == (frozen.digest, frozen.shape)
    assert kept.by_name["weather"].retries == 4
    assert kept.adopt(None, needed={"place", "report"}) is kept  # it may be done, and is no matter
    with pytest.raises(UnknownKind):
        kept.adopt(None, needed={"weather"})


def test_what_only_looks_like_a_function_is_kept_as_it_is() -> None:
    document = {"kind": "unheard", "name": "a", "params": {"module": 1, "qualname": "f"}}
    graph = FrozenGraph.model_validate({"name": "g", "nodes": [document]})
    assert graph.nodes[0].identity() == document
    assert graph.digest


def test_what_any_kind_writes_would_be_kept_by_a_version_that_does_not_know_it() -> None:
    golden = json.loads((HOMES / "documents" / "documents.json").read_text())["graph"]
    document = json.loads(golden["json"])
    for node in document["nodes"]:
        node["kind"] = "unheard"
    kept = FrozenGraph.model_validate(document)
    assert json.loads(kept.model_dump_json()) == document
    for node in kept.nodes:
        assert node.identity() == {**json.loads(golden["identities"][node.name]), "kind": "unheard"}


def test_a_plan_of_an_unknown_kind_is_kept_to_the_byte() -> None:
    plan = Plan.load(HOMES / "documents" / "plan.json").encode()
    unheard = plan.replace('"kind":"infer"', '"kind":"unheard"')
    kept = Plan.model_validate_json(unheard)
    assert kept.encode() == unheard != plan
    assert [planned.price for planned in kept.nodes] == [
        planned.price for planned in Plan.model_validate_json(plan).nodes
    ]
    assert "unheard" in str(kept)


def test_a_saved_plan_of_an_unknown_kind_says_which(packages: Packages, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    text = (HOMES / "documents" / "plan.json").read_text()
    path.write_text(text.replace('"kind": "infer"', '"kind": "unheard"'))
    with pytest.raises(UnknownKind, match="there is no such kind: 'unheard'"):
        Plan.load(path)
    path.write_text(text.replace('"kind": "infer"', '"kind": 3'))
    with pytest.raises(PlanError, match="is not a plan"):
        Plan.load(path)
