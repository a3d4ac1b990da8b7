"""An agent that runs unattended: it finishes what a crash left behind, and keeps a schedule."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.timing import limit

from agentkit.artifacts import Text
from agentkit.errors import ConfigError, PlanError, RunFailed, RunNotFound, RunPaused, WrongInput
from agentkit.graph.builder import JobGraph
from agentkit.runtime.result import RunResult
from agentkit.runtime.run import Run
from agentkit.schedule import every


def rows(folder: Path, count: int) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(f'{{"n": "row {n}"}}\n' for n in range(count)))
    return path


def mapped(folder: Path) -> JobGraph:
    graph = JobGraph("mapped")
    table = graph.data("rows", source=rows(folder, 12))
    graph.infer("said", model="smollm2-135m", over=table, prompt="{n}", max_tokens=6)
    return graph


def with_a_lambda() -> JobGraph:
    graph = JobGraph("lambda")
    text = graph.infer("greet", model="smollm2-135m", prompt="Hi.", max_tokens=4)
    graph.local("size", lambda text: len(text.text), text)
    return graph


async def test_every_run_that_was_left_is_finished_and_one_that_cannot_be_is_reported(
    open_agent: Any, tmp_path: Path
) -> None:
    async with open_agent() as agent:
        left = [
            await agent.start(await agent.plan(graph, balance=False))
            for graph in (mapped(tmp_path), with_a_lambda())
        ]
        for run in left:
            await crash(run)
        assert {run.status.outcome for run in left} == {"running"}
        ids = [run.id for run in left]
    async with open_agent() as agent:
        outcomes = await agent.resume_all(wait=True)
        assert list(outcomes) == sorted(ids)
        assert isinstance(outcomes[ids[0]], RunResult)
        assert len(outcomes[ids[0]]["said"].rows()) == 12  # type: ignore[index,union-attr]
        assert isinstance(outcomes[ids[1]], WrongInput)
        assert "ak.resume" in outcomes[ids[1]].hint  # type: ignore[union-attr]
        again = await agent.resume_all(graphs=[with_a_lambda()], wait=True)
        assert list(again) == [ids[1]]
        assert isinstance(again[ids[1]], RunResult)
        assert await agent.resume_all() == {}


async def crash(run: Run) -> None:
    """Leave a run as a killed process does: nothing more is recorded, and its lease is free."""
    run._task.cancel()
    await asyncio.wait([run._task])
    run._lease.close()  # which the task does, if it ever began


async def test_what_somebody_paused_stays_paused_until_it_is_asked_for(
    open_agent: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It went on with everything that was ever paused, and bought what nobody wanted any more."""
    async with open_agent() as agent:
        run = await agent.start(await agent.plan(mapped(tmp_path), balance=False))
        await run.stop()
        assert await agent.resume_all() == {}
        assert f"run {run.id} (mapped) stays paused: it was asked to stop" in caplog.text
        assert (await agent.status(run.id)).outcome == "paused"
        outcomes = await agent.resume_all(paused=True, wait=True)
        assert isinstance(outcomes[run.id], RunResult)
        assert f"run {run.id} (mapped) was left paused: going on with it" in caplog.text


async def test_runs_go_on_beside_new_work(open_agent: Any, tmp_path: Path) -> None:
    """The first tick of a schedule waited until the last of them had ended."""
    wait = asyncio.Event()

    async def later(table: Any) -> int:
        await wait.wait()
        return len(table.rows())

    graph = mapped(tmp_path)
    graph.local("later", later, graph.ref("said"))
    async with open_agent() as agent:
        run = await agent.start(await agent.plan(graph, balance=False))
        await crash(run)
        async with asyncio.timeout(limit(20)):
            resumed = await agent.resume_all([graph])
        handle = resumed[run.id]
        assert isinstance(handle, Run)
        assert await agent.resume_all([graph]) == {}  # this process works on it
        result = await agent.run(with_a_lambda())
        assert result.receipts
        assert handle.status.outcome == "running"
        wait.set()
        assert (await handle.result())["later"].value == 12  # type: ignore[attr-defined]


async def test_a_function_that_raised_is_not_called_again_by_itself(open_agent: Any) -> None:
    calls = []

    def breaks(text: Text) -> int:
        calls.append(text)
        raise ZeroDivisionError

    graph = JobGraph("breaks")
    text = graph.infer("greet", model="smollm2-135m", prompt="Hi.", max_tokens=4)
    graph.local("size", breaks, text, retries=0)
    async with open_agent() as agent:
        with pytest.raises(RunPaused, match="size: ZeroDivisionError") as raised:
            await agent.run(graph)
        for paused in (False, True):
            outcomes = await agent.resume_all([graph], paused=paused)
            assert len(calls) == 1
            assert outcomes.keys() == ({raised.value.run_id} if paused else set())
        refused = outcomes[raised.value.run_id]
        assert isinstance(refused, RunPaused)
        assert refused.hint.startswith("mend the function of 'size'")


async def test_an_agent_knows_the_ticks_it_missed_while_it_was_not_there(open_agent: Any) -> None:
    async with open_agent() as agent:
        first = await anext(agent.every(timedelta(hours=1), "hourly"))
        file = agent.home / "schedules" / "hourly"
        file.write_text(f"{first.at - 3 * 3600 - 60}\n")
    async with open_agent() as agent:
        tick = await anext(agent.every(timedelta(hours=1), "hourly"))
        assert tick.missed == 2
        assert tick.at == pytest.approx(first.at - 60, abs=5)
        assert (await anext(agent.every(timedelta(hours=1), "daily"))).missed == 0
        with pytest.raises(ConfigError, match="is not a name for a schedule"):
            agent.every(timedelta(hours=1), "../state")


async def test_a_run_is_cancelled_from_another_process(open_agent: Any, tmp_path: Path) -> None:
    """Two agents of one wallet: one works, the other ends its run and gets the hold back."""
    async with open_agent() as one, open_agent() as other:
        run = await one.start(await one.plan(mapped(tmp_path), balance=False))
        assert await other.cancel(run.id)
        assert (await other.status(run.id)).outcome == "cancelled"
        with pytest.raises(RunFailed, match="was cancelled"):
            await run.result()
        assert (await other.status(run.id)).outcome == "cancelled"
        assert not (await other.balances()).held


async def test_what_is_missed_is_counted_and_not_made_up() -> None:
    ticks = []
    async for tick in every(timedelta(seconds=0.2)):
        ticks.append(tick)
        if len(ticks) == 2:
            await asyncio.sleep(0.5)  # work that runs over two moments
        if len(ticks) == 4:
            break
    assert [tick.missed for tick in ticks] == [0, 0, 2, 0]
    assert ticks[2].at - ticks[1].at == pytest.approx(0.6)
    with pytest.raises(ConfigError):
        await anext(every(timedelta(0)))


async def test_findings_are_there_for_the_next_process(open_agent: Any) -> None:
    graph = JobGraph("find")
    greet = graph.infer("greet", model="smollm2-135m", prompt="Hi.", max_tokens=4)
    async with open_agent() as agent:
        result = await agent.run(graph)
        assert isinstance(result[greet], Text)
        await agent.memory.note("findings", result.summary())
    async with open_agent() as agent:
        assert result.run_id in (await agent.memory.latest("findings") or "")
        assert await agent.memory.latest("nothing") is None


async def test_a_run_whose_function_is_gone_can_still_be_cancelled(open_agent: Any) -> None:
    async with open_agent() as agent:
        run = await agent.start(await agent.plan(with_a_lambda(), balance=False))
        await run.stop()
    async with open_agent() as agent:
        await agent.cancel(run.id)
        assert (await agent.status(run.id)).outcome == "cancelled"
        assert not (await agent.balances()).held
        with pytest.raises(RunFailed):
            await (await agent.resume(run.id)).result()


async def test_words_where_values_belong_are_refused_with_a_hint(open_agent: Any) -> None:
    graph = JobGraph("g")
    graph.infer("greet", model="smollm2-135m", prompt="Hi.")
    async with open_agent() as agent:
        for wish in ({"deadline": "10m"}, {"policy": "deny(gaia)"}, {"objective": "fast"}):
            with pytest.raises(ConfigError, match=re.escape(next(iter(wish.values())))) as raised:
                await agent.plan(graph, **wish)
            assert raised.value.hint.startswith("pass ")
        with pytest.raises(WrongInput, match=r"graph\.toml"):
            await agent.plan("graph.toml")


async def test_what_is_left_of_a_run_is_planned_and_gone_on_with(
    open_agent: Any, tmp_path: Path
) -> None:
    """The second plan is of the rest, under the run's budget, and knows what a first run used."""
    graph = mapped(tmp_path)
    async with open_agent() as agent:
        run = await agent.start(await agent.plan(graph, budget="1 USDC", balance=False))
        while not run.status.items.get("said"):
            await asyncio.sleep(0.01)
        await run.stop()
        done = len(run.status.items["said"])
        plan = await agent.plan(graph, run=run.id, balance=False)
        left = plan.node("said").spec
        assert left is not None
        assert (plan.budget, left.items, left.likely) == (run.plan.budget, 12, 12 - done)
        assert "it is done" in plan.explain("rows")
        result = await (await agent.resume(run.id, plan=plan)).result()
        assert len(result["said"].rows()) == 12  # type: ignore[attr-defined]
        assert len(result.receipts) == 12
        known = await agent.plan(graph, balance=False)
        assert f"measured in run {run.id}" in known.explain("said")
        with pytest.raises(RunNotFound):
            await agent.plan(graph, run="r0")


async def test_a_wish_in_another_currency_is_a_plan_error(open_agent: Any, tmp_path: Path) -> None:
    async with open_agent() as agent:
        with pytest.raises(PlanError, match="the budget is in ETH"):
            await agent.plan(mapped(tmp_path), budget="1 ETH", balance=False)
        by_weight = await agent.plan(mapped(tmp_path), objective=0.5, risk=0.9, balance=False)
        assert by_weight.objective == "0.5"


async def test_a_schedule_inside_an_agent_goes_on_in_the_next_one(
    open_agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr("agentkit.schedule.time.time", lambda: now)
    hour = timedelta(hours=1)
    async with open_agent():
        first = await anext(every(hour))
    assert (first.at, first.missed) == (now, 0)
    now += 3.5 * 3600  # nobody was there
    async with open_agent():
        tick = await anext(every(hour))
    assert (tick.at, tick.missed) == (first.at + 3 * 3600, 2)
    assert (await anext(every(hour))).missed == 0, "outside of an agent nothing is remembered"
