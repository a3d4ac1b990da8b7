"""Tasks that are larger than they say, and those that use more than what they pay for."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.pool_tasks import CHAT, LADDER

from agentkit.errors import BadOutput, Refused
from agentkit.pool.pool import Pool

CROSS = "select sum(a.range * b.range) from range(1000000) a, range(1000000) b"
ENDLESS = {"op": "sql", "sql": CROSS}
SLEEPING = {"op": "sql", "sql": "select sleep_ms(60000)"}


@pytest.mark.parametrize("output", [None, "embedding"])
async def test_a_prompt_of_more_tokens_than_declared_is_not_read(pool: Pool, output: Any) -> None:
    model = "all-minilm-l6-v2" if output else "smollm2-135m"
    params = {"model": model, "prompt": "word " * 400, "max_tokens": 1, "output": output}
    with pytest.raises(Refused, match=r"has \d+ tokens, and its load declares 50"):
        await pool.run("long", "infer", params, {}, declared={"input": 50, "output": 1})
    done = await pool.run("same", "infer", params, {}, declared={"input": 500, "output": 1})
    assert 400 <= done.usage["input"] <= 500


async def test_a_query_ends_with_its_processor_time(pool: Pool) -> None:
    start = time.monotonic()
    with pytest.raises(Refused, match=r"more than 0\.5 s of processor time"):
        await pool.run("endless", "data", ENDLESS, {}, declared={"cpu_ms": 500})
    assert time.monotonic() - start < 20
    with pytest.raises(Refused, match=r"more than 2 s of processor time"):  # the node's minimum
        await pool.run("free", "data", ENDLESS, {}, declared={})
    done = await pool.run("next", "data", {"op": "sql", "sql": "select 1"}, {}, declared={})
    assert 0 < done.cpu_ms < 2000


async def test_a_task_that_only_waits_ends_too(pool: Pool, monkeypatch: Any) -> None:
    monkeypatch.setattr("agentkit.pool.declared.WALL_SECONDS", 0.5)
    with pytest.raises(Refused, match=r"longer than 2\.5 s"):
        await pool.run("asleep", "data", SLEEPING, {}, declared={"cpu_ms": 400})


@pytest.mark.parametrize("style", ["chat", "complete"])
async def test_a_grammar_that_grows_without_end_ends_with_its_processor_time(
    pool: Pool, monkeypatch: Any, style: str
) -> None:
    monkeypatch.setattr("agentkit.json_schemas.MAX_WRITTEN_OUT", 10**15)
    asked = {**CHAT, "style": style, "schema": LADDER, "max_tokens": 8}
    declared = {"input": 66, "output": 8, "cpu_ms": 2000}
    start = time.monotonic()
    try:
        done = await pool.run("ladder", "infer", asked, {}, declared=declared)
    except (Refused, BadOutput) as ended:
        assert style == "complete" or "processor time" in str(ended)
    else:
        assert style == "complete"  # this one compiles a reference once
        assert done.cpu_ms <= 2200
    assert time.monotonic() - start < 30


async def test_generation_ends_with_its_processor_time(pool: Pool) -> None:
    asked = {**CHAT, "style": "complete", "prompt": "1, 2, 3,", "max_tokens": 1500}
    with pytest.raises(Refused, match=r"more than 0\.3 s of processor time"):
        await pool.run("long", "infer", asked, {}, declared={"cpu_ms": 300, "input": 99})
    done = await pool.run("short", "infer", {**asked, "max_tokens": 2}, {}, declared={"input": 99})
    assert done.usage["output"] == 2
    assert done.cpu_ms > 0
