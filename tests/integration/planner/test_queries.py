"""A query that cannot be run is found when it is planned, and so is what reads its columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.toy_market import toy

from agentkit.errors import WrongInput
from agentkit.graph.builder import JobGraph
from agentkit.kinds.sizes import UNKNOWN_QUERY
from agentkit.planner import queries
from agentkit.planner.queries import bind

ROWS = '{"id": 1, "text": "a", "tags": ["x"], "when_": {"day": 1}}\n'


def querying(folder: Path, sql: str, prompt: str = "hello") -> JobGraph:
    (folder / "rows.jsonl").write_text(ROWS)
    graph = JobGraph("querying")
    rows = graph.data("rows", source="rows.jsonl")
    found = graph.data("found", sql=sql, inputs={"rows": rows})
    graph.infer("ask", model="m", over=found, prompt=prompt)
    return graph


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select missing from rows", '"missing" not found'),
        ("selec id from rows", "syntax error"),
        ("select id from other", "other does not exist"),
        ("select id + tags from rows", "Binder Error"),
        ("select id from rows; drop table rows", "2 statements"),
        ("drop table rows", "only SELECT"),
        ("select * from read_csv('/etc/passwd')", "Permission Error"),
    ],
)
async def test_a_query_that_cannot_be_run_is_refused_when_planned(
    tmp_path: Path, sql: str, said: str
) -> None:
    async with toy(tmp_path) as market:
        with pytest.raises(WrongInput, match="the query of node 'found' cannot be run") as raised:
            await market.plan(querying(tmp_path, sql))
        assert said in str(raised.value)
        assert raised.value.hint.startswith("mend sql=")
        assert 'rows has "id" ' in raised.value.hint


@pytest.mark.parametrize(
    "sql",
    [
        "select id, text, tags[1] as tag, when_.day from rows where len(tags) > 0",
        "select text, count(*) as n from rows group by text order by n desc limit 3",
        "with a as (select * from rows) select a.id, b.text from a join a b using (id)",
    ],
)
async def test_a_query_that_can_be_run_is_planned(tmp_path: Path, sql: str) -> None:
    async with toy(tmp_path) as market:
        assert (await market.plan(querying(tmp_path, sql))).nodes


async def test_what_reads_a_query_is_checked_against_its_columns(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        await market.plan(querying(tmp_path, "select upper(text) as loud from rows", "{loud}"))
        with pytest.raises(WrongInput, match=r"names \{text\}, and not every row has it"):
            await market.plan(querying(tmp_path, "select upper(text) as l from rows", "{text}"))


async def test_queries_of_queries_are_checked_too(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = querying(tmp_path, "select id, text as words from rows")
        graph.data("next", sql="select text from found", inputs={"found": graph.ref("found")})
        with pytest.raises(WrongInput, match="the query of node 'next' cannot be run"):
            await market.plan(graph)


async def test_where_the_tables_are_not_known_nothing_is_refused(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        made = graph.local("made", print)
        graph.data("q", sql="select whatever from made", inputs={})
        assert made
        graph = querying(tmp_path, "select id from rows")
        answers = graph.infer("judge", model="m", over=graph.ref("found"), prompt="x", output=int)
        graph.data("q", sql="select judge + 1 from t", inputs={"t": answers})
        assert (await market.plan(graph)).nodes


def test_a_check_that_cannot_be_made_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = f"select * from ({' union all '.join(['select * from t'] * 20_000)})"
    assert bind(endless, {"t": {"a": "BIGINT"}}) == UNKNOWN_QUERY
    assert bind("select b from t", {"t": {"a": "BIGINT"}}).fault  # by another child
    monkeypatch.setattr(queries, "installed", lambda _: False)
    assert bind("selec", {}) == UNKNOWN_QUERY


def test_a_column_is_no_code(tmp_path: Path) -> None:
    names: dict[str, Any] = {'a"; drop table t; --': "BIGINT", "b": "VARCHAR"}
    assert bind("select b from t", {"t": names}).fault == ""
