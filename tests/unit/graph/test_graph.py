import hashlib
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentkit.artifacts import Dataset, Embedding, Json, Text
from agentkit.errors import (
    CyclicGraph,
    DuplicateNode,
    GraphError,
    UnknownInput,
    WrongInput,
)
from agentkit.graph import callables, codec
from agentkit.graph.builder import JobGraph


class Topic(BaseModel):
    name: str
    note: str | None = None


def shout(text: Text) -> Json:
    return Json.dump(text.text.upper())


def every_kind() -> JobGraph:
    graph = JobGraph("every-kind")
    rows = graph.data("rows", source="rows.jsonl", sha256="ab" * 32)
    clean = graph.data("clean", sql='select * from "rows"', inputs={"rows": rows})
    topics = graph.infer("topic", model="m", over=clean, prompt="{text}", output=Topic)
    train, held = graph.split("parts", topics, at=0.75, seed=3)
    tuned = graph.train("tune", base="b", dataset=train, retries=1)
    graph.infer("check", model=tuned, over=held, prompt="{text}", max_items=7, stop=("\n",))
    graph.infer("vectors", model="e", over=rows, prompt="{text}", output=Embedding)
    hello = graph.infer("hello", model="m", prompt="multi\nline {{literal}}", on_unknown="rebuy")
    graph.infer("yes-no", model="m", prompt="{a}?", inputs={"a": hello}, output=Literal["y", "n"])
    graph.local("shout", shout, hello)
    return graph


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_a_graph_reads_back_to_the_same_digest(tmp_path: Path, suffix: str) -> None:
    graph = every_kind()
    path = tmp_path / f"graph.{suffix}"
    graph.save(path)
    again = JobGraph.load(path)
    assert again.freeze().digest == graph.freeze().digest
    assert again.ref("parts", 1).type is Dataset


def test_the_digest_is_of_what_is_asked_not_of_where_the_file_stands() -> None:
    graph = JobGraph("one")
    graph.local("n", shout, graph.infer("a", model="m", prompt="x"))
    frozen = graph.freeze()
    node = frozen.by_name["n"]
    moved = node.fn.model_copy(update={"file": "/somewhere/else.py"})  # type: ignore[union-attr]
    other = frozen.model_copy(
        update={"nodes": (frozen.nodes[0], node.model_copy(update={"fn": moved}))}
    )
    assert other.digest == frozen.digest
    changed = JobGraph("one")
    changed.local("n", shout, changed.infer("a", model="m", prompt="y"))
    assert changed.freeze().digest != frozen.digest


def test_nodes_stand_after_their_inputs() -> None:
    frozen = every_kind().freeze()
    seen: set[str] = set()
    for node in frozen.nodes:
        assert set(frozen.parents[node.name]) <= seen
        seen.add(node.name)


def test_refs_know_their_type() -> None:
    graph = JobGraph("types")
    rows = graph.data("rows", source="x.csv")
    assert graph.infer("a", model="m", prompt="x").type is Text
    assert graph.infer("b", model="m", prompt="x", output=Topic).type is Json
    assert graph.infer("c", model="m", prompt="x", over=rows).type is Dataset
    assert graph.infer("d", model="m", prompt="{x}", over=rows, output=Embedding).type is Embedding


def test_mermaid_shows_every_node_and_edge() -> None:
    text = every_kind().to_mermaid()
    frozen = every_kind().freeze()
    assert text.count("-->") == sum(len(above) for above in frozen.parents.values())
    assert all(f'"{node.name}<br/>' in text for node in frozen.nodes)


# -- bad input -----------------------------------------------------------------------------------


def refused(error: type[GraphError], word: str, call: Any) -> None:
    with pytest.raises(error, match=word) as raised:
        call()
    assert raised.value.exit_code == 2
    assert isinstance(raised.value, ValueError)


def test_a_name_is_used_once() -> None:
    graph = JobGraph("g")
    graph.data("rows", source="x.jsonl")
    refused(DuplicateNode, "'rows'", lambda: graph.data("rows", source="y.jsonl"))


def test_a_ref_of_another_graph_is_refused() -> None:
    other = JobGraph("other").data("rows", source="x.jsonl")
    graph = JobGraph("g")
    refused(UnknownInput, "other", lambda: graph.train("t", base="b", dataset=other))


def test_a_ref_of_the_wrong_kind_is_refused() -> None:
    graph = JobGraph("g")
    rows = graph.data("rows", source="x.jsonl")
    model = graph.train("t", base="b", dataset=rows)
    refused(WrongInput, "Table", lambda: graph.train("u", base="b", dataset=model))  # type: ignore[arg-type]
    refused(
        WrongInput,
        "Model",
        lambda: graph.infer("i", model=rows, prompt="x"),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("{text", WrongInput),
        ("{a.b}", WrongInput),
        ("{0}", WrongInput),
        ("{}", WrongInput),
        ("{a!r:>10}", WrongInput),
        ("{unknown}", UnknownInput),
    ],
)
def test_prompts_hold_plain_names_of_inputs(prompt: str, error: type[GraphError]) -> None:
    graph = JobGraph("g")
    with pytest.raises(error) as raised:
        graph.infer("i", model="m", prompt=prompt)
    assert raised.value.hint


def test_a_cycle_is_named() -> None:
    document = {
        "name": "loop",
        "nodes": [
            {"kind": "data", "op": "sql", "name": n, "sql": "select 1", "inputs": {m: {"node": m}}}
            for n, m in (("a", "b"), ("b", "c"), ("c", "a"))
        ],
    }
    refused(CyclicGraph, "a -> b -> c|b -> c -> a|c -> a -> b|->", lambda: codec.decode(document))


def test_a_dangling_ref_is_named() -> None:
    document = {
        "name": "g",
        "nodes": [{"kind": "train", "name": "t", "base": "b", "dataset": {"node": "gone"}}],
    }
    refused(UnknownInput, "gone", lambda: codec.decode(document))


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"name": "g"},
        {"name": "g", "nodes": []},
        {"name": "g", "nodes": [{"kind": "fly"}]},
        {"name": "g", "nodes": [{"kind": "infer", "name": "a b", "model": "m", "prompt": ""}]},
        {
            "name": "g",
            "nodes": [{"kind": "infer", "name": "a", "model": "m", "prompt": "", "x": 1}],
        },
    ],
)
def test_a_bad_document_is_a_graph_error_with_a_hint(document: object) -> None:
    with pytest.raises(GraphError) as raised:
        codec.decode(document)
    assert raised.value.hint


@pytest.mark.parametrize(("name", "text"), [("g.toml", "= no"), ("g.json", "{"), ("g.json", "")])
def test_an_unreadable_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    refused(GraphError, name, lambda: JobGraph.load(tmp_path / name))
    refused(GraphError, "gone", lambda: JobGraph.load(tmp_path / "gone.toml"))


# -- functions -----------------------------------------------------------------------------------


def finding(spec: callables.CallableSpec) -> Any:
    """Look for a function as a document's, in a file that is consented to."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    reader = callables.CodeReader(callables.Consent.to([digest]))
    reader.need(spec)
    return reader.find(spec)


def test_a_function_is_found_again_by_where_it_stands() -> None:
    spec = callables.describe(shout)
    assert spec.portable
    assert finding(spec) is shout


def test_a_changed_function_is_refused() -> None:
    spec = callables.describe(shout).model_copy(update={"sha256": "00" * 32})
    with pytest.raises(WrongInput, match="changed"):
        finding(spec)


def test_a_lambda_runs_only_where_it_was_made() -> None:
    spec = callables.describe(lambda text: text)
    assert not spec.portable
    with pytest.raises(WrongInput, match="lives only in the process") as raised:
        finding(spec)
    assert "ak.resume" in raised.value.hint


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,10}", fullmatch=True)
texts = st.text(max_size=60).map(lambda text: text.replace("{", "{{").replace("}", "}}"))


@example(prompts={"a": "one\r\ntwo\rthree\n"}, tokens=1, stop=["\r\n"])
@given(
    prompts=st.dictionaries(names, texts, min_size=1, max_size=5),
    tokens=st.integers(1, 500),
    stop=st.lists(st.text(max_size=5), max_size=3),
)
def test_any_text_survives_toml_and_json(
    tmp_path_factory: pytest.TempPathFactory,
    prompts: dict[str, str],
    tokens: int,
    stop: list[str],
) -> None:
    graph = JobGraph("texts")
    for name, prompt in prompts.items():
        graph.infer(name, model="m", prompt=prompt, max_tokens=tokens, stop=tuple(stop))
    folder = tmp_path_factory.mktemp("graphs")
    for suffix in ("toml", "json"):
        graph.save(folder / f"g.{suffix}")
        assert JobGraph.load(folder / f"g.{suffix}").freeze().digest == graph.freeze().digest
