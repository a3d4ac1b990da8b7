"""A large artifact outlives the machine that made it, and a flipped byte on the way."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from e2e.test_restore import opened, own, restore

from agentkit.artifacts import Json
from agentkit.embedded import discovery
from agentkit.graph.builder import JobGraph

__all__ = ["own"]

LETTERS = 400_000


def letters() -> Json:
    draw = random.Random(7)
    return Json.dump("".join(draw.choices("abcdefgh", k=LETTERS)))


def graph_of() -> JobGraph:
    graph = JobGraph("large")
    graph.local("count", count, graph.local("letters", letters))
    return graph


def count(made: Json) -> int:
    return len(made.value)


async def test_a_large_artifact_is_found_on_another_machine(
    own: discovery.NetworkFile, tmp_path: Path, kubo_rpc: str
) -> None:
    for home, settings in (("a", {}), ("b", {"ipfs": kubo_rpc, "arweave_up_to": 0})):
        scheme = "ipfs" if settings else "ar"
        async with opened(tmp_path, f"{home}-old", memory=settings) as agent:
            plan = await agent.plan(graph_of())
            assert "not portable" not in str(plan)
            done = await agent.run(graph_of())
            (locator,) = (at for at in done["letters"].locators if "://" in at)
            assert locator.startswith(f"{scheme}://")
        shutil.move(tmp_path / f"{home}-old", tmp_path / f"{home}-gone")
        assert restore(tmp_path, own, f"{home}-new")["runs"] >= 1
        async with opened(tmp_path, f"{home}-new", memory=settings) as agent:
            again = await (await agent.resume(done.run_id, graph=graph_of())).result()
            assert again["letters"].read() == letters().read()
            assert again["count"].value == LETTERS


async def test_a_plan_says_what_only_this_machine_will_have(
    open_agent: Any, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(('{"text": "' + "x" * 1000 + '"}\n') * 400)
    graph = JobGraph("rows")
    graph.data("rows", source=str(tmp_path / "rows.jsonl"))
    async with open_agent(memory={"arweave_up_to": 0}) as agent:
        told = str(await agent.plan(graph))
    assert "not portable: rows (large outputs stay on this machine; set memory.ipfs)" in told
