"""A slot's child that does not keep to the protocol, by a defect or because a task took it over."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentkit.artifacts import Dataset
from agentkit.errors import LeaseLost, Refused
from agentkit.pool.child import Child
from agentkit.pool.pool import Pool

ROGUE = """
import os, sys
from agentkit import framing
from agentkit.pool.parent_watch import bind_to_parent

pipe = os.dup(1)
requests, answer = bind_to_parent()
for request in requests:
    {act}
"""

ACTS = {
    "another's id": 'answer({"id": "0" * 16, "done": "stolen"})',
    "no id": 'os.write(pipe, framing.HEADER.pack(13) + b\'{"done": "x"}\')',
    "no JSON": 'os.write(pipe, framing.HEADER.pack(5) + b"hello")',
    "too deep": 'os.write(pipe, framing.HEADER.pack(400) + b"[" * 200 + b"]" * 200)',
    "too long": "os.write(pipe, framing.HEADER.pack(1 << 31))",
    "a line": 'os.write(pipe, b\'{"done": "x"}\\n\' * 9)',
}


async def start(module: str, act: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    (folder / f"{module}.py").write_text(ROGUE.format(act=act))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return await Child.start(module, folder, threads=1, nice=0)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_a_child_that_breaks_the_protocol_is_killed_and_its_request_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    child = await start("rogue", act, tmp_path, monkeypatch)
    with pytest.raises(LeaseLost, match="broke its protocol"):
        await child.ask({"task": "query"})
    assert not child.alive


async def test_an_answer_too_many_is_nobodys_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = 'for _ in range(2): answer({"id": request["id"], "done": request["who"]})'
    child = await start("twice", act, tmp_path, monkeypatch)
    assert (await child.ask({"who": "alice"}))["done"] == "alice"
    with pytest.raises(LeaseLost, match="another request"):
        await child.ask({"who": "bob"})
    assert not child.alive


async def test_a_long_error_does_not_shift_the_answers_that_follow(
    tmp_path: Path, pool: Pool
) -> None:
    shout = {"op": "sql", "sql": f"select '{'x' * 200_000}'::int"}
    for number in range(3):
        with pytest.raises(Refused, match="DuckDB") as refused:
            await pool.run("shout", "data", shout, {})
        assert len(str(refused.value)) < 600
        assert "\n" not in str(refused.value)
        done = await pool.run("next", "data", {"op": "sql", "sql": f"select {number} as n"}, {})
        (table,) = done.outputs
        assert isinstance(table, Dataset)
        assert table.rows() == [{"n": number}]


async def test_a_result_with_more_columns_than_an_answer_holds_is_refused(pool: Pool) -> None:
    columns = ", ".join(f"{n} as {'c' * 2000}{n}" for n in range(2500))
    with pytest.raises(Refused, match="too long"):
        await pool.run("wide", "data", {"op": "sql", "sql": f"select {columns}"}, {})
    assert (await pool.run("next", "data", {"op": "sql", "sql": "select 1 as a"}, {})).outputs
