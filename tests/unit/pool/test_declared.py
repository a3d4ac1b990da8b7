"""Tasks that are larger than they say, and those that use more than what they pay for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from support.pool_tasks import CHAT, LADDER

from agentkit.artifacts import Artifact, Dataset
from agentkit.errors import Refused
from agentkit.pool.pool import Pool

ROWS = Dataset.dump([{"text": "good", "label": "a"}, {"text": "bad", "label": "b"}] * 5)


@pytest.mark.parametrize(
    ("kind", "params", "inputs", "declared", "unit"),
    [
        ("infer", {**CHAT, "max_tokens": 2000}, {}, {"request": 1, "input": 66}, "output"),
        ("infer", {**CHAT, "max_tokens": 9}, {}, {"input": 66, "output": 8}, "output"),
        ("data", {"op": "sql", "sql": "select 1"}, {"t": ROWS}, {"byte": ROWS.size - 1}, "byte"),
        ("data", {"op": "sql", "sql": "select 1"}, {"t": ROWS}, {}, "byte"),
        ("train", {"base": "x", "epochs": 3}, {"dataset": ROWS}, {"row": 29}, "row"),
        ("infer", {**CHAT, "max_tokens": 8}, {}, {"input": -9, "output": 8}, "input"),
    ],
)
async def test_a_task_larger_than_declared_is_refused_before_any_work(
    pool: Pool,
    begun: list[str],
    kind: str,
    params: dict[str, Any],
    inputs: Mapping[str, Artifact],
    declared: dict[str, int],
    unit: str,
) -> None:
    with pytest.raises(Refused, match=f"{unit!r}"):
        await pool.check(kind, params, inputs, declared)
    assert begun == []


async def test_a_task_as_large_as_declared_is_taken(pool: Pool) -> None:
    await pool.check("data", {"op": "sql", "sql": "select 1"}, {"t": ROWS}, {"byte": ROWS.size})
    await pool.check("train", {"base": "x", "epochs": 3}, {"dataset": ROWS}, {"row": 30})
    await pool.check("infer", {**CHAT, "max_tokens": 8}, {}, {"output": 8})


@pytest.mark.parametrize("schema", [{"pattern": "(?=a)b"}, {"type": "strange"}, LADDER])
async def test_a_schema_that_cannot_be_used_is_refused_before_it_is_paid(
    pool: Pool, schema: dict[str, Any]
) -> None:
    with pytest.raises(Refused, match="schema"):
        params = {**CHAT, "max_tokens": 8, "schema": schema}
        await pool.check("infer", params, {}, {"output": 8})
