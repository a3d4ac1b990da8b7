from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from agentkit.artifacts import Table
from agentkit.errors import Refused
from agentkit.pool import sql
from agentkit.pool.pool import Pool

ROWS = [{"n": 1, "who": "Ann"}, {"n": 2, "who": "Bob"}, {"n": 3, "who": "Ann"}]


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "secret.csv").write_text("word\nopensesame\n")
    (tmp_path / "secret.json").write_text('{"word": "opensesame"}\n')
    folder = tmp_path / "room"
    folder.mkdir()
    return folder


def query(room: Path, statement: str, memory_mib: int = 256, **tables: Table) -> list[Any]:
    files = {}
    for name, table in tables.items():
        files[name] = str(room / f"{len(files)}.jsonl")
        Path(files[name]).write_bytes(table.read())
    out = room / "out"
    sql.query(sql=statement, tables=files, folder=str(room), memory_mib=memory_mib, out=str(out))
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_values_become_json(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    (row,) = query(
        room,
        "select date '2026-01-02' d, timestamptz '2026-01-02 10:00:00+02' t, 1.50::decimal(9,2) p,"
        " 'nan'::double x, 1/0 y, interval 3 day i, [1, 2] l, {'a': true} s, null n, sum(1) h,"
        " uuid '00000000-0000-0000-0000-000000000001' u",
    )
    assert row == {
        "d": "2026-01-02",
        "t": "2026-01-02 08:00:00+00",
        "p": 1.5,
        "x": None,
        "y": None,
        "i": "3 days",
        "l": [1, 2],
        "s": {"a": True},
        "n": None,
        "h": 1,
        "u": "00000000-0000-0000-0000-000000000001",
    }


def test_what_goes_in_comes_out(room: Path) -> None:
    rows = [
        {
            "day": "2026-01-02",
            "at": "2026-01-02T10:00:00Z",
            "id": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "clock": "10:00:00",
            "nested": {"at": "2026-01-02T10:00:00Z", "list": [1, 2.5]},
            "none": None,
            'a "quoted" name': "é",
        },
        {"day": "2026-01-03"},
    ]
    first, second = query(room, 'select * from "my ""table"""', **{'my "table"': Table.dump(rows)})
    assert first == rows[0]
    assert second["id"] is None


def test_order_is_kept_and_rows_without_one_come_the_same_each_time(room: Path) -> None:
    table = Table.dump({"n": n, "m": n % 7} for n in range(5000))
    down = query(room, "select n from t order by n desc", t=table)
    assert [row["n"] for row in down] == list(range(4999, -1, -1))
    loose = "select m, count(*) c, random() r from t group by m"
    assert query(room, loose, t=table) == query(room, loose, t=table)


def test_a_table_without_rows_is_still_a_table(room: Path) -> None:
    assert query(room, "select count(*) as n from t", t=Table.dump([])) == [{"n": 0}]
    assert query(room, "select * from t where n > 9", t=Table.dump(ROWS)) == []


READS = [
    "select * from read_csv('{secret}.csv')",
    "select * from read_csv_auto(['{secret}.csv'])",
    "select * from read_json('{secret}.json')",
    "select content from read_text('{secret}.csv')",
    "select content from read_blob('{secret}.csv')",
    "select * from '{secret}.csv'",
    'select * from "{secret}.json"',
    "select content from read_text('{room}/../secret.csv')",
    "select * from glob('{room}/../*')",
    "select * from glob('/*')",
    "select * from sniff_csv('{secret}.csv')",
    "select * from read_parquet('{secret}.csv')",
    "select * from query('from read_csv(''{secret}.csv'')')",
    "select * from query_table('{secret}.csv')",
    "with t as (from read_csv('{secret}.csv')) from t",
    "select (select content from read_text('{secret}.csv'))",
    "select * from json_execute_serialized_sql("
    "json_serialize_sql('from read_csv(''{secret}.csv'')'))",
    "select * from 'https://127.0.0.1:1/x.csv'",
    "select * from read_csv('/dev/stdin')",
]
STATEMENTS = [
    "copy t to '{room}/../stolen'",
    "copy t to '{room}/stolen'",
    "copy (select 1) to '/dev/stdout'",
    "copy t from '{secret}.csv'",
    "export database '{room}/../stolen'",
    "import database '{room}'",
    "attach '{room}/../stolen' as x",
    "install httpfs",
    "load httpfs",
    "load '{room}/x.duckdb_extension'",
    "pragma enable_external_access=true",
    "pragma database_list",
    "set enable_external_access=true",
    "set lock_configuration=false",
    "set temp_directory='/'",
    "reset threads",
    "call enable_logging()",
    "create table x as select 1",
    "create macro f() as table from read_csv('{secret}.csv')",
    "create secret (type s3, key_id 'a', secret 'b')",
    "insert into t values (4, 'x')",
    "update t set n = 0",
    "delete from t",
    "drop table t",
    "explain analyze select 1",
    "prepare p as select 1",
    "use memory",
    "begin",
    "checkpoint",
    "vacuum",
]
SETTINGS = [
    "from enable_logging('QueryLog', storage='file', storage_config={{'path': '{room}/stolen'}})",
    "from enable_profiling(save_location='{room}/../stolen')",
    "select * from query('copy (select 1) to ''{room}/../stolen''')",
    "select * from query('set threads=2')",
    "select 1) to '{room}/../stolen' --",
    "select 1 union all (copy t to '{room}/../stolen')",
]
SEVERAL = [
    "select 1; select 2",
    "select 1; copy t to '{room}/../stolen'",
    "select 1 -- ; \n; drop table t",
    "",
    ";",
    "-- nothing",
    "pivot t on who using sum(n)",
]


def test_the_secret_can_be_read_where_nothing_is_locked(room: Path) -> None:
    where = str(room.parent / "secret")
    for statement in READS[:8]:
        found = duckdb.connect().execute(statement.format(secret=where, room=room)).fetchall()
        assert "opensesame" in str(found), statement


def test_a_table_name_is_never_a_python_variable(room: Path) -> None:
    hidden = np.array([42])
    assert duckdb.connect().execute("select * from hidden").fetchall() == [(42,)]
    with sql._open_database(str(room), 100) as db, pytest.raises(duckdb.CatalogException):
        db.execute("select * from hidden")
    assert hidden


@pytest.mark.parametrize("statement", READS + STATEMENTS + SETTINGS + SEVERAL)
def test_there_is_no_way_out(room: Path, statement: str, capfd: Any) -> None:
    before = {path: path.read_bytes() for path in room.parent.glob("*.*")}
    asked = statement.format(secret=room.parent / "secret", room=room)
    with pytest.raises(Refused) as caught:
        query(room, asked, t=Table.dump(ROWS))
    assert "\n" not in str(caught.value)
    assert str(caught.value)
    assert "opensesame" not in str(caught.value)
    assert {path: path.read_bytes() for path in room.parent.glob("*.*")} == before
    assert not list(room.parent.rglob("stolen*"))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("select nothing from t", "Binder Error.*nothing"),
        ("selec 1", "Parser Error.*selec"),
        ("select 'a'::int", "Conversion Error"),
        ("select $1", "parameter"),
        ("copy t to 'x'", "only SELECT is run here, not COPY"),
        ("select 1; select 2", "this is 2 statements"),
    ],
)
def test_a_wrong_query_is_refused_in_duckdbs_words(room: Path, statement: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        query(room, statement, t=Table.dump(ROWS))


def test_a_query_that_needs_too_much_memory_is_refused(room: Path) -> None:
    with pytest.raises(Refused, match="Out of Memory"):
        query(room, "select list(random()) from range(20000000)", memory_mib=20)


def test_a_result_that_grows_too_large_is_refused(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_MOST_BYTES", 1 << 20)
    with pytest.raises(Refused, match="larger than 1 MiB"):
        query(room, "select range from range(1000000000000)")


@pytest.mark.parametrize("params", [{"op": "split"}, {"op": "sql"}, {"op": "sql", "sql": ""}, {}])
async def test_other_operations_are_refused(pool: Pool, params: dict[str, str]) -> None:
    with pytest.raises(Refused, match="parameter"):
        await pool.run("call", "data", params, {})


@pytest.mark.parametrize(
    "values",
    [
        [123456789012345678901234567890],
        [-(2**127), 2**127 - 1],
        [2**63, None, -1],
        [9007199254740992, 0.5],
        [True, None, False],
        [[2**70], [1]],
        [{"deep": {"wei": 2**100}}, {"deep": {"wei": 1}}],
    ],
)
def test_numbers_come_out_as_they_went_in(room: Path, values: list[Any]) -> None:
    rows = [{"x": value} for value in values]
    assert query(room, "select x from t", t=Table.dump(rows)) == rows


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"x": 9007199254740993}, {"x": 0.5}], ["'x'", "round"]),
        ([{"x": 2**127}], ["'x'", "128 bits"]),
        ([{"x": [2**53 + 1, 0.5]}], ["'x[]'", "round"]),
        ([{"x": {"y": -(2**127) - 1}}], ["'x.y'", "128 bits"]),
        ([{"x": 1}, {"x": 2}, {"x": "n/a"}], ["'x'", "row 3", "a number", "text"]),
        ([{"x": 1}, {"x": True}], ["'x'", "row 2"]),
        ([{"Name": 1, "name": 2}], ["'Name'", "'name'", "case"]),
        ([{"straße": 1, "STRASSE": 2}], ["case"]),
        ([{"": 1, "a": 2}], ["no name"]),
    ],
)
def test_what_sql_would_round_or_mix_up_is_refused(
    room: Path, rows: list[dict[str, Any]], words: list[str]
) -> None:
    with pytest.raises(Refused) as refused:
        query(room, "select * from t", t=Table.dump(rows))
    assert all(word in str(refused.value) for word in ["'t'", *words])


def test_a_result_that_json_would_round_is_refused(room: Path) -> None:
    table = Table.dump(ROWS)
    exact = "select 0.1234567890123456789::decimal(38,19) d from t"
    with pytest.raises(Refused, match="cast it to double"):
        query(room, exact, t=table)
    assert query(room, f"select d::varchar d from ({exact}) limit 1", t=table) == [
        {"d": "0.1234567890123456789"}
    ]
    assert query(room, "select sum(n * 1.5) d from t", t=table) == [{"d": 9.0}]


def test_a_wide_table_keeps_its_columns(room: Path) -> None:
    rows = [{f"k{n}": n} for n in range(300)]
    found = query(room, "select k299, k0 from t where k299 is not null", t=Table.dump(rows))
    assert found == [{"k299": 299, "k0": None}]
