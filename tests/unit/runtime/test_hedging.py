"""A second provider is asked when the first is slow: seldom, and only one of them is paid."""

import asyncio
import json
from pathlib import Path

import pytest
from support.timing import limit
from support.toy_market import Toy, toy

from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.market.attempt import Attempt, JobStatus, Payment, Result
from agentkit.market.offer import Offer
from agentkit.market.task import Task
from agentkit.runtime import run as runs
from agentkit.runtime.hedging import Hedges
from agentkit.testing.fakes import FakeProvider

pytestmark = pytest.mark.alone

ROWS = 120
SLOW = {30, 60, 90}


class Straggling(FakeProvider):
    """Takes `slow` seconds for some rows, `usual` for others; remembers what it had to stop."""

    cancelled: list[str]
    usual = 0.01
    slow = 1.5

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        return JobStatus(state="queued")

    async def result(self, attempt: Attempt) -> Result:
        self._execute(self.tasks[attempt.id], attempt)
        await asyncio.sleep(self.slow if attempt.item in SLOW else self.usual)
        found = self._read(attempt)
        assert found
        return found

    async def cancel(self, attempt: Attempt) -> None:
        self.cancelled.append(attempt.id)
        await super().cancel(attempt)


def straggling(folder: Path, **more: object) -> Straggling:
    provider = Straggling("slow", folder / "slow", **more)  # type: ignore[arg-type]
    provider.cancelled, provider.tasks = [], {}  # type: ignore[attr-defined]
    submit = provider.submit

    async def remembered(task: Task, offer: Offer, attempt: Attempt, payment: Payment) -> JobStatus:
        provider.tasks[attempt.id] = task  # type: ignore[attr-defined]
        return await submit(task, offer, attempt, payment)

    provider.submit = remembered  # type: ignore[method-assign]
    return provider


def mapped(folder: Path) -> JobGraph:
    rows = "".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(ROWS))
    (folder / "rows.jsonl").write_text(rows)
    graph = JobGraph("mapped")
    table = graph.data("rows", source="rows.jsonl")
    graph.infer("label", model="m", over=table, prompt="{text}", max_items=ROWS)
    return graph


async def opened(market: Toy, run: str) -> list[Attempt]:
    events = await market.journal.history(run)
    return [event.attempt for event in events if isinstance(event, e.AttemptOpened)]


async def test_a_straggler_is_bought_elsewhere_and_only_the_faster_is_paid(tmp_path: Path) -> None:
    slow, fast = straggling(tmp_path), FakeProvider("fast", tmp_path / "fast", factor=2)
    # A usual row that the machine delays by as much again would count as slow, so they take long;
    # a slow one ends only by being cancelled, however late the second provider is asked.
    slow.usual = limit(0.1)
    slow.slow = 3600.0
    async with toy(tmp_path, slow=slow, fast=fast) as market:
        result = await market.run(mapped(tmp_path))
        attempts = await opened(market, result.run_id)
        extra = [attempt for attempt in attempts if attempt.n]
        assert {attempt.item for attempt in extra} == SLOW
        assert len(attempts) <= 1.06 * ROWS
        paid = [receipt.attempt for receipt in result.receipts]
        assert sorted(attempt.item or 0 for attempt in paid) == list(range(ROWS))
        assert {a.provider for a in paid if a.item in SLOW} == {"fast"}
        assert len(slow.cancelled) == len(SLOW)
        rows = await market.journal.commit(lambda tx: tx.every(r.Reservation))
        assert [row.standing for row in rows].count("paid") == ROWS
        assert [row.standing for row in rows].count("unpaid") == len(SLOW)
        assert await market.journal.commit(lambda tx: tx.every(r.Hold)) == []


async def test_nothing_is_hedged_that_is_not_paid_on_delivery(tmp_path: Path) -> None:
    slow = straggling(tmp_path, pays="with_request")
    fast = FakeProvider("fast", tmp_path / "fast", factor=2)
    async with toy(tmp_path, slow=slow, fast=fast) as market:
        result = await market.run(mapped(tmp_path))
        assert len(await opened(market, result.run_id)) == ROWS


async def test_the_first_counts_when_the_second_fails(tmp_path: Path) -> None:
    slow, fast = straggling(tmp_path), FakeProvider("fast", tmp_path / "fast", factor=2)
    async with toy(tmp_path, slow=slow, fast=fast) as market:
        plan = await market.plan(mapped(tmp_path))
        del market.providers["fast"]
        result = await (await runs.start(market.means, plan)).result()
        assert {receipt.attempt.provider for receipt in result.receipts} == {"slow"}
        assert len(result.receipts) == ROWS


def test_extra_calls_keep_within_six_in_a_hundred() -> None:
    hedges, extra = Hedges(), 0
    for _ in range(1000):
        hedges.calls += 1
        while hedges.allowed():
            hedges.extra += 1
            extra += 1
        assert hedges.extra <= 0.06 * hedges.calls
    assert extra == 60


def test_nobody_is_slow_before_there_is_a_median() -> None:
    hedges = Hedges()
    for seconds in (1.0, 1.0, 1.0, 9.0):
        hedges.took("label", seconds)
    assert hedges.patience("label") is None
    hedges.took("label", 1.0)
    assert hedges.patience("label") == 2.0
    assert hedges.patience("other") is None
