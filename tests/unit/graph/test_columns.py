"""Rows that a node would damage, or could not use, are refused before anything is bought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentkit.artifacts import Embedding
from agentkit.errors import WrongInput
from agentkit.graph.builder import JobGraph
from agentkit.planner.estimate import sizes_of, spec_of


def price(graph: JobGraph, name: str, folder: Path) -> Any:
    frozen = graph.freeze()
    return spec_of(frozen.by_name[name], sizes_of(frozen, folder))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text("text,summary,vector\na,by hand,1\n")
    return tmp_path


def test_a_column_is_not_overwritten(rows: Path) -> None:
    graph = JobGraph("clash")
    source = graph.data("rows", source="rows.csv")
    graph.infer("summary", model="m", prompt="Sum up {text}", over=source)
    graph.infer("other", model="m", prompt="Sum up {text}", over=source, column="mine")
    graph.infer("embed", model="m", prompt="{text}", over=source, output=Embedding)
    with pytest.raises(WrongInput, match=r"'summary'.*overwrite the column 'summary'") as refused:
        price(graph, "summary", rows)
    assert "column=" in refused.value.hint
    with pytest.raises(WrongInput, match="overwrite the column 'vector'"):
        price(graph, "embed", rows)
    assert price(graph, "other", rows)


def test_a_name_that_is_an_input_and_a_column_is_refused(rows: Path) -> None:
    graph = JobGraph("clash")
    source = graph.data("rows", source="rows.csv")
    text = graph.infer("ask", model="m", prompt="Write")
    graph.infer("say", model="m", prompt="{text}", over=source, inputs={"text": text})
    with pytest.raises(WrongInput, match=r"\{text\}.*an input and a column"):
        price(graph, "say", rows)


def test_a_training_without_its_columns_is_refused(rows: Path) -> None:
    graph = JobGraph("train")
    source = graph.data("rows", source="rows.csv")
    graph.train("tune", base="m", dataset=source)
    with pytest.raises(WrongInput, match="'tune' trains on the column 'label'") as refused:
        price(graph, "tune", rows)
    assert "summary" in refused.value.hint


def test_rows_that_sql_would_round_are_refused_before_anything_is_bought(tmp_path: Path) -> None:
    (tmp_path / "wei.jsonl").write_text('{"wei": 9007199254740993}\n{"wei": 0.5}\n')
    graph = JobGraph("sql")
    graph.data("o", sql="select wei from t", inputs={"t": graph.data("rows", source="wei.jsonl")})
    with pytest.raises(WrongInput, match=r"'o'.*'wei' of 'wei\.jsonl' holds fractions beside"):
        price(graph, "o", tmp_path)
