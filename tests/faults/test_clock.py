"""The clock jumps by a day in mid-run: it ends, at agreed prices, and each payment has a day."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.fault_jobs import HALF, ROWS, Endless, all_is_well, in_books, mapped
from support.timing import limit, until
from support.toy_market import toy

from agentkit.errors import OverBudget, RunPaused
from agentkit.graph.builder import JobGraph
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt
from agentkit.market.offer import Offer
from agentkit.market.task import Task, TaskSpec
from agentkit.runtime import run as runs
from agentkit.testing.fakes import FakeProvider

DAY = 86_400.0


class Clock:
    """The wall clock, as far as Python reads it; the other one goes on as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead, self.jumps, real = 0.0, 0, time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead)

    def jump(self, seconds: float) -> None:
        self.ahead += seconds
        self.jumps += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Asked(FakeProvider):
    """Does one thing after the other, lets the clock jump in the middle, counts requests."""

    offered = 0

    def jumping(self, clock: Clock, seconds: float) -> "Asked":
        def before(task: Task, attempt: Attempt) -> None:
            if attempt.item == HALF:
                clock.jump(seconds)

        self.before, self.lanes = before, 1
        return self

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        self.offered += 1
        return await super().offers(spec)


@pytest.mark.parametrize("days", [1, -1])
@pytest.mark.parametrize("deadline", [None, 60.0])
async def test_a_run_outlives_a_jump(
    tmp_path: Path, clock: Clock, days: int, deadline: float | None
) -> None:
    one = Asked("one", tmp_path / "one").jumping(clock, days * DAY)
    async with toy(tmp_path, one=one) as market:
        plan = await market.plan(mapped(tmp_path), deadline=deadline)
        run = await runs.start(market.means, plan)
        await run.result()
        assert clock.jumps == 1
        await all_is_well(market, run.status, ROWS)
        assert one.offered == (1 + ROWS - HALF - 1 if days > 0 else 1)  # asked again, or they hold
        books = await market.journal.commit(in_books)
        by_day = [units for scope, units in books.items() if scope.startswith("day:")]
        assert len(by_day) == 2
        assert sum(by_day) == books["ever"]


@pytest.mark.parametrize("days", [1, -1])
async def test_a_deadline_comes_when_it_was_to_come(
    tmp_path: Path, clock: Clock, days: int
) -> None:
    """Neither at once after a jump ahead, nor a day late after one back."""
    async with toy(tmp_path, endless=Endless("endless", tmp_path / "p")) as market:
        graph = JobGraph("endless")
        graph.infer("ask", model="m", prompt="hello", retries=0)
        began = time.monotonic()
        run = await runs.start(market.means, await market.plan(graph, deadline=1.5))
        await until(lambda: run.status.purchases)
        clock.jump(days * DAY)
        async with asyncio.timeout(limit(10)):
            with pytest.raises(RunPaused):
                await run.result()
        assert 1.0 < time.monotonic() - began < 5.0
        assert run.status.receipts == []


async def test_a_limit_of_a_day_counts_each_payment_once(tmp_path: Path, clock: Clock) -> None:
    one = Asked("one", tmp_path / "one").jumping(clock, DAY)
    async with toy(tmp_path, one=one) as market:
        graph = mapped(tmp_path)
        plan = await market.plan(graph)
        market.allowance = Allowance(per_day=plan.at_most)
        began = clock.ahead
        await (await runs.start(market.means, plan)).result()  # half before midnight, half after
        one.before = lambda task, attempt: None

        async def refused() -> None:
            with pytest.raises(OverBudget) as raised:
                await market.run(graph)
            assert raised.value.limit == "per_day"

        await refused()
        clock.jump(began - clock.ahead)
        await refused()
        clock.jump(2 * DAY)
        paid = (await market.run(graph)).paid
        books = await market.journal.commit(in_books)
        assert books["ever"] == 2 * paid.units
        by_day = sorted(units for scope, units in books.items() if scope.startswith("day:"))
        assert len(by_day) == 3
        assert by_day[0] > 0
        assert by_day[0] + by_day[1] == by_day[2] == paid.units
        assert len(market.executions) == 2 * ROWS
