from __future__ import annotations

from typing import Any

import pytest

from agentkit.artifacts import Blob, Dataset, Table
from agentkit.errors import Refused
from agentkit.pool.pool import Pool

ROWS = [{"n": 1, "who": "Ann"}, {"n": 2, "who": "Bob"}, {"n": 3, "who": "Ann"}]


async def test_a_query_over_tables_gives_a_dataset(pool: Pool, begun: list[str]) -> None:
    people, ages = Dataset.dump(ROWS), Table.dump([{"who": "Ann", "age": 30}])
    statement = 'select who, sum(n) as "all", max(age) as age from t join "a.ges" using (who)'
    params = {"op": "sql", "sql": statement + " group by who;"}
    done = await pool.run("call", "data", params, {"t": people, "a.ges": ages})
    assert done.outputs == (Dataset.dump([{"who": "Ann", "all": 4, "age": 30}]),)
    assert done.usage == {"byte": people.size + ages.size}
    assert begun == ["call"]
    again = await pool.run("call", "data", params, {"t": people, "a.ges": ages})
    assert again.outputs[0].digest == done.outputs[0].digest


async def test_an_input_must_be_a_table_in_json_lines(pool: Pool) -> None:
    params = {"op": "sql", "sql": "select 1"}
    with pytest.raises(Refused, match="'t' is a blob, not a table"):
        await pool.run("call", "data", params, {"t": Blob.of(b"x")})
    with pytest.raises(Refused, match="row 2 of 't' is not JSON") as caught:
        await pool.run("call", "data", params, {"t": Table.of(b'{"a": 1}\n{"a":\n')})
    assert "/pool/" not in str(caught.value)


async def test_columns_survive_a_query_that_finds_nothing(pool: Pool) -> None:
    people = Dataset.dump([{"who": "Ann", "n": 1, "seen": [1]}])

    async def ask(sql: str, table: Table) -> Any:
        done = await pool.run("call", "data", {"op": "sql", "sql": sql}, {"t": table})
        return done.outputs[0]

    none = await ask("select who, n + 0.5 as half, seen from t where n > 9", people)
    assert none.rows() == []
    assert none.columns == {"who": "text", "half": "number", "seen": "nested"}
    again = await ask("select who, half * 2 as x from t", none)
    assert again.columns == {"who": "text", "x": "number"}
    with pytest.raises(Refused, match="missing"):
        await ask("select missing from t", none)
