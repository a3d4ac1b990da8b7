"""Graphs that are decided while they run: conditions and what follows, maps, cached tasks."""

import asyncio
import json
import linecache
from pathlib import Path

import pytest
from support.toy_market import Toy, toy

from agentkit.artifacts import Dataset, Json
from agentkit.errors import RunFailed, RunPaused, UnknownInput, WrongInput
from agentkit.graph.builder import JobGraph
from agentkit.graph.callables import load_file
from agentkit.journal import records as r
from agentkit.runtime import history
from agentkit.runtime import run as runs


def score() -> float:
    return 0.5


def report() -> dict[str, object]:
    return {"accuracy": 0.9, "topic": "x"}


def judged(below: float) -> JobGraph:
    graph = JobGraph("judged")
    told = graph.local("score", score)
    graph.infer("apologise", model="m", prompt="sorry", when=told.below(below))
    return graph


async def test_a_node_whose_condition_does_not_hold_is_not_bought(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        result = await market.run(judged(below=0.1))
        assert market.executions == []
        assert not result.paid
        assert result.skipped == {"apologise": "score below 0.1 did not hold"}
        with pytest.raises(UnknownInput, match=r"skipped: score below 0\.1") as raised:
            result["apologise"]
        assert "result.skipped" in raised.value.hint


async def test_a_node_whose_condition_holds_is_bought(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        result = await market.run(judged(below=0.8))
        assert result.skipped == {}
        assert len(market.executions) == 1


async def test_what_reads_a_skipped_node_is_skipped_too(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        told = graph.local("report", report)
        one = graph.infer("one", model="m", prompt="a", when=told.above(0.95, key="accuracy"))
        two = graph.infer("two", model="m", prompt="{one}", inputs={"one": one})
        graph.infer("three", model="m", prompt="{two}", inputs={"two": two})
        other = graph.infer("other", model="m", prompt="b", when=told.equals("x", key="topic"))
        result = await market.run(graph)
        assert set(result.skipped) == {"one", "two", "three"}
        assert result.skipped["three"] == "two was skipped"
        assert result[other].text == "answer to: b"
        assert len(market.executions) == 1


async def test_a_skipped_node_needs_nothing_of_the_hold(tmp_path: Path) -> None:
    """A hedge or a top-up would set money aside for what is never bought."""
    async with toy(tmp_path) as market:
        run = await runs.start(market.means, await market.plan(judged(below=0.1)))
        await run.ended()
        planned = run.plan.node("apologise")
        assert planned.at_most
        assert run.status.rest_of(planned) == 0
        assert runs.RunState("r").rest_of(planned) == planned.at_most.units


async def test_all_conditions_of_a_node_must_hold(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        told = graph.local("score", score)
        graph.infer("ask", model="m", prompt="a", when=[told.below(0.8), told.above(0.6)])
        result = await market.run(graph)
        assert result.skipped == {"ask": "score above 0.6 did not hold"}


async def test_a_condition_that_cannot_be_told_fails_the_run_before_it_buys(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        told = graph.local("report", report)
        graph.infer("ask", model="m", prompt="a", when=told.below(0.8))
        with pytest.raises(RunFailed, match="ask: report is an object"):
            await market.run(graph)
        assert market.executions == []


async def test_a_function_may_be_the_condition(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        told = graph.local("score", score)
        graph.infer("ask", model="m", prompt="a", when=told.holds(lambda value: value > 1))
        assert "ask" in (await market.run(graph)).skipped


async def test_what_was_skipped_stays_so_when_the_run_goes_on(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = judged(below=0.1)
        graph.local("slow", asyncio.Event().wait)
        run = await runs.start(market.means, await market.plan(graph))
        while not run.status.skipped:
            await asyncio.sleep(0.01)
        await run.stop()
        state = await history.read(market.journal, run.id)
        assert state.skipped == {"apologise": "score below 0.1 did not hold"}
        again = await runs.resume(market.means, run.id, graph=graph.freeze())
        await again.stop()
        events = [type(x).__name__ async for x in again.events()]
        assert events.count("NodeSkipped") == 1


async def test_an_included_graph_runs_as_part_of_the_other(tmp_path: Path) -> None:
    part = JobGraph("part")
    asked = part.infer("ask", model="m", prompt="hello")
    part.infer("twice", model="m", prompt="{ask}", inputs={"ask": asked})
    async with toy(tmp_path) as market:
        whole = JobGraph("whole")
        one, two = whole.include(part, prefix="a."), whole.include(part, prefix="b.")
        result = await market.run(whole)
        assert result[one[asked]].text == "answer to: hello"
        assert result[two["twice"]].text == "answer to: answer to: hello"
        assert len(market.executions) == 4


async def test_a_mapped_node_keeps_its_column_where_it_is_included(tmp_path: Path) -> None:
    """What reads the column by name would be bought for nothing, or fail after it was paid."""
    (tmp_path / "rows.jsonl").write_text('{"text": "row"}\n')
    part = JobGraph("part")
    table = part.data("rows", source="rows.jsonl")
    labels = part.infer("label", model="m", over=table, prompt="{text}")
    last = part.infer("check", model="m", over=labels, prompt="is it {label}?")
    async with toy(tmp_path) as market:
        whole = JobGraph("whole")
        sub = whole.include(part, prefix="a.")
        result = await market.run(whole)
        assert result[sub[last]].rows() == [
            {
                "text": "row",
                "label": "answer to: row",
                "check": "answer to: is it answer to: row?",
            }
        ]


def rows_of(folder: Path, count: int) -> JobGraph:
    rows = "".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(count))
    (folder / "rows.jsonl").write_text(rows)
    graph = JobGraph("mapped")
    table = graph.data("rows", source="rows.jsonl")
    answers = graph.infer("label", model="m", over=table, prompt="{text}", cache=True)
    graph.local("count", count_rows, answers)
    return graph


def count_rows(rows: Dataset) -> Json:
    return Json.dump(len(rows.rows()))


async def test_a_mapped_ref_can_be_reduced(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        result = await market.run(rows_of(tmp_path, 7))
        assert result["count"].value == 7  # type: ignore[attr-defined]


# -- cache ---------------------------------------------------------------------------------------


async def test_the_same_task_is_paid_once_over_all_runs(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        asked = graph.infer("ask", model="m", prompt="hello", cache=True)
        first = await market.run(graph)
        again = await market.run(graph)
        assert again[asked] == first[asked]
        assert first.paid
        assert not again.paid
        assert again.receipts == ()
        assert len(market.executions) == 1


async def test_items_are_taken_again_one_by_one(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        await market.run(rows_of(tmp_path, 5))
        result = await market.run(rows_of(tmp_path, 8))
        assert len(market.executions) == 8
        assert len(result.receipts) == 3


async def test_without_cache_it_is_bought_again(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        graph.infer("ask", model="m", prompt="hello")
        await market.run(graph)
        await market.run(graph)
        assert len(market.executions) == 2


async def test_another_prompt_is_another_task(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        for prompt in ("hello", "hallo"):
            graph = JobGraph("g")
            graph.infer("ask", model="m", prompt=prompt, cache=True)
            await market.run(graph)
        assert len(market.executions) == 2


async def test_a_cached_output_that_is_gone_is_bought_again(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        graph.infer("ask", model="m", prompt="x" * 1000, cache=True)
        await market.run(graph)
        (row,) = await market.journal.commit(lambda tx: tx.every(r.Reusable))
        lost = row.model_copy(
            update={"outputs": (row.outputs[0].model_copy(update={"digest": "00" * 32}),)}
        )
        await market.journal.commit(lambda tx: tx.put(lost))
        result = await market.run(graph)
        assert len(market.executions) == 2
        assert result.paid


# -- a deploy of new code -------------------------------------------------------------------------


def deployed(folder: Path, body: str) -> JobGraph:
    """Return a graph with the function of a file as it is written now."""
    file = folder / "deployed.py"
    file.write_text(body)
    linecache.checkcache(str(file))
    graph = JobGraph("deployed")
    asked = graph.infer("ask", model="m", prompt="hello")
    graph.local("after", load_file(file, "deployed").after, asked)
    return graph


async def paused_before_the_function(market: Toy, graph: JobGraph) -> str:
    run = await runs.start(market.means, await market.plan(graph))
    with pytest.raises(RunPaused):
        market.providers["one"].before = market.providers["two"].before = _stop(run)
        await run.result()
    return run.id


def _stop(run: runs.Run):  # type: ignore[no-untyped-def]
    def fault(task: object, attempt: object) -> None:
        run._scheduler.stop()

    return fault


async def test_new_code_is_taken_where_the_graph_is_given(tmp_path: Path) -> None:
    """A deploy does not strand a run: finished nodes stay, the new function does the rest."""
    async with toy(tmp_path) as market:
        old = deployed(tmp_path, "def after(x): return 1\n")
        run = await paused_before_the_function(market, old)
        for provider in market.providers.values():
            provider.before = lambda task, attempt: None
        new = deployed(tmp_path, "def after(x): return 2222\n").freeze()
        assert new.digest != old.freeze().digest
        with pytest.raises(WrongInput, match="has changed since the run began"):
            await runs.resume(market.means, run)
        result = await (await runs.resume(market.means, run, graph=new)).result()
        assert result["after"].value == 2222  # type: ignore[attr-defined]
        assert len(market.executions) == 1


async def test_another_graph_is_not_taken_for_new_code(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        old = deployed(tmp_path, "def after(x): return 1\n")
        run = await paused_before_the_function(market, old)
        with pytest.raises(WrongInput, match="is not the one of the run"):
            await runs.resume(market.means, run, graph=judged(0.1).freeze())
