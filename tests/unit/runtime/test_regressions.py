"""Ways in which a run could lose money, fail or hang, each of which it once did."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.timing import limit, until
from support.toy_market import GatedProvider, Toy, toy

import agentkit as ak
from agentkit.artifacts import Json, Table, Text
from agentkit.errors import (
    ConfigError,
    InsufficientFunds,
    Refused,
    RunFailed,
    RunPaused,
    StoreUnavailable,
    Unavailable,
)
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.in_memory import MemoryJournal
from agentkit.kinds.infer import Infer
from agentkit.kinds.source import Source
from agentkit.market.attempt import Attempt, JobStatus, Message, Payment, Result
from agentkit.market.offer import Offer
from agentkit.market.seams import Transaction, Wanted
from agentkit.market.task import Task
from agentkit.money import Money, Rate
from agentkit.runtime import event_stream, history
from agentkit.runtime import run as runs
from agentkit.testing.fakes import RATES, USDC, FakeProvider, ToyRail


class Queueing(FakeProvider):
    """Takes a task at once and answers later; `hang`: never.  `lost` ones never arrive."""

    hang = True
    lost = False
    wait = 0.01

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        if not self.lost:
            self._raise(self.before(task, attempt))
            self._execute(task, attempt)
        return JobStatus(state="queued")

    async def result(self, attempt: Attempt) -> Result:
        await asyncio.sleep(3600 if self.hang else self.wait)
        return await super().result(attempt)


def asking(**more: Any) -> JobGraph:
    graph = JobGraph("asking")
    graph.infer("ask", model="m", prompt="hello", **more)
    return graph


def mapped(folder: Path, count: int) -> JobGraph:
    rows = "".join(f'{{"text": "{n}"}}\n' for n in range(count))
    (folder / "rows.jsonl").write_text(rows)
    graph = JobGraph("mapped")
    table = graph.data("rows", source="rows.jsonl")
    graph.infer("label", model="m", over=table, prompt="{text}", max_items=count)
    return graph


async def left_behind(market: Toy, graph: JobGraph, attempts: int, **wish: Any) -> str:
    """Start a run, wait until so many attempts are open, and stop it."""
    run = await runs.start(market.means, await market.plan(graph, **wish))
    await until(lambda: sum(len(p.open) for p in run.status.purchases.values()) == attempts)
    await asyncio.sleep(0.05)
    await run.stop()
    assert run.status.outcome == "paused"
    return run.id


# -- money ---------------------------------------------------------------------------------------


class Locking(ToyRail):
    """Locks each attempt's at most before it is sent, and has it back only by time, as escrow."""

    def __init__(self) -> None:
        super().__init__()
        self.locked: list[str] = []
        self.market: Toy

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        await self.market.means.journal.commit(wanted.reserve)
        self.locked.append(wanted.attempt.id)
        return []

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        if attempt.id not in self.locked:
            raise InsufficientFunds("nothing is locked for it")
        return Payment(rail="toy")

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        return True


async def test_what_stays_locked_leaves_the_next_provider_what_the_budget_has(
    tmp_path: Path,
) -> None:
    """The first delivers nothing and its money is locked for days; the hold was for one of them."""
    one, two = FakeProvider("one", tmp_path / "one"), FakeProvider("two", tmp_path / "two")
    one.before = lambda task, attempt: Refused("not today", provider="one")
    rail = Locking()
    async with toy(tmp_path, rail=rail, one=one, two=two) as market:
        rail.market = market
        result = await market.run(asking(retries=0))
        assert [receipt.attempt.provider for receipt in result.receipts] == ["two"]
        assert len(rail.locked) == 2
        rows = await market.journal.commit(lambda tx: tx.every(r.Reservation))
        assert {row.provider: row.standing for row in rows} == {"one": "open", "two": "paid"}
        held = [x for x in await market.journal.history(e.WALLET) if isinstance(x, e.Held)]
        assert sum(x.amount.units for x in held) == sum(row.amount.units for row in rows)
        hold = await market.journal.commit(lambda tx: tx.get(r.Hold, result.run_id))
        assert hold
        assert hold.left == hold.reserved, "only what may still be drawn is held"


async def test_a_provider_never_agrees_with_itself(tmp_path: Path) -> None:
    """After a resume, a lost replica went to the node that had the other one: both were paid."""
    one, two = (Queueing(name, tmp_path / name) for name in ("one", "two"))
    one.lost = True
    async with toy(tmp_path, one=one, two=two) as market:
        graph = asking(verify=ak.verify.redundant(2, of=2), retries=0)
        run = await left_behind(market, graph, 2)
        one.before = lambda task, attempt: Unavailable(provider="one")
        one.lost = one.hang = two.hang = False
        with pytest.raises(RunPaused, match="1 of 2 replicas"):
            await (await runs.resume(market.means, run)).result()
        one.before = lambda task, attempt: None
        result = await (await runs.resume(market.means, run)).result()
        assert {receipt.attempt.provider for receipt in result.receipts} == {"one", "two"}


@pytest.mark.parametrize(
    "verify", [lambda text: False, ak.verify.redundant(2, of=2)], ids=["function", "redundant"]
)
async def test_what_was_bought_unchecked_is_not_taken_where_checks_are_asked(
    tmp_path: Path, verify: Any
) -> None:
    async with toy(tmp_path) as market:
        await market.run(asking(cache=True))
        graph = asking(cache=True, verify=verify)
        if callable(verify):
            with pytest.raises(RunPaused, match="did not verify"):
                await market.run(graph)
        else:
            assert len((await market.run(graph)).receipts) == 2
        assert len(market.executions) == 3


async def test_a_cached_output_is_verified_again(tmp_path: Path) -> None:
    answers = [True, False, True]
    async with toy(tmp_path, one=FakeProvider("one", tmp_path / "one")) as market:
        graph = asking(cache=True, verify=lambda text: answers.pop(0))
        await market.run(graph)
        await market.run(graph)
        assert len(market.executions) == 2


@pytest.mark.parametrize("pays", ["on_delivery", "with_request"])
async def test_finished_work_is_not_called_off_because_the_deadline_has_passed(
    tmp_path: Path, pays: Any
) -> None:
    one = Queueing("one", tmp_path / "one", pays=pays)
    async with toy(tmp_path, one=one, rail=ToyRail(pays)) as market:
        graph = asking(retries=0)
        run = await left_behind(market, graph, 1, deadline=0.6)
        one.hang = False
        await asyncio.sleep(0.7)
        with pytest.raises(RunPaused, match="deadline"):
            await (await runs.resume(market.means, run)).result()
        later = await runs.resume(market.means, run, plan=await market.plan(graph, deadline=9))
        result = await later.result()
        assert [receipt.standing for receipt in result.receipts] == ["paid"]
        assert len(market.executions) == 1


class SlowAt30(Queueing):
    hang = False

    async def result(self, attempt: Attempt) -> Result:
        self.wait = {30: 1.5}.get(attempt.item or 0, 0.1 if (attempt.item or 0) > 30 else 0.03)
        return await super().result(attempt)


@pytest.mark.parametrize(("budget", "hedged"), [("0.04", 0), ("1", 1)])
async def test_a_hedge_leaves_what_planned_items_need(
    tmp_path: Path, budget: str, hedged: int
) -> None:
    one, two = (SlowAt30(name, tmp_path / name, lanes=4) for name in ("one", "two"))
    for provider in (one, two):
        provider.rates = {
            unit: Rate.parse(f"{int(unit == 'request')} USDC per 1K units").bind(USDC)
            for unit in RATES
        }
    async with toy(tmp_path, one=one, two=two) as market:
        result = await market.run(mapped(tmp_path, 40), budget=budget)
        assert len(result.receipts) == 40
        events = await market.journal.history(result.run_id)
        extra = [x for x in events if isinstance(x, e.AttemptOpened) and x.attempt.n]
        assert (len(extra) >= hedged) if hedged else not extra


async def test_a_run_whose_function_failed_buys_nothing_more(tmp_path: Path) -> None:
    one = GatedProvider("one", tmp_path / "one", free=4, lanes=2)

    async def fails() -> None:
        await one.reached.wait()
        # What was bought before the failure comes to its end; the run knows of it long before.
        asyncio.get_running_loop().call_later(0.5, one.open)
        raise ZeroDivisionError

    async with toy(tmp_path, one=one) as market:
        graph = mapped(tmp_path, 60)
        graph.local("fails", fails, retries=0)
        with pytest.raises(RunPaused, match="ZeroDivisionError"):
            await market.run(graph)
        assert len(market.executions) < 10


# -- runs that must pause and not fail -----------------------------------------------------------


async def test_a_mapped_node_lets_what_follows_start_once(tmp_path: Path) -> None:
    """A join began without its other input where the write was quick."""

    async def slow() -> int:
        await asyncio.sleep(0.2)
        return 1

    def join(labels: Table, number: Json) -> list[int]:
        return [len(labels.rows()), number.value]

    async with toy(tmp_path) as market:
        market.journal = MemoryJournal(tmp_path / "memory")  # whose writes take no time at all
        graph = mapped(tmp_path, 2)
        graph.local("join", join, graph.ref("label"), graph.local("slow", slow))
        assert (await market.run(graph))["join"].value == [2, 1]  # type: ignore[attr-defined]


class OwnWords(Queueing):
    """Says its own name, slowly."""

    async def result(self, attempt: Attempt) -> Result:
        await asyncio.sleep(0.2)
        found = await FakeProvider.result(self, attempt)
        return Result((Text.of(self.name.encode()),), found.usage, found.price)


async def test_a_stop_while_replicas_disagree_is_a_pause(tmp_path: Path) -> None:
    async with toy(
        tmp_path, **{n: OwnWords(n, tmp_path / n, finds=False) for n in ("one", "two")}
    ) as market:
        run = await runs.start(
            market.means, await market.plan(asking(verify=ak.verify.redundant(2, of=2)))
        )
        await until(lambda: len(run.status.purchases) == 2)
        await run.stop()
        assert run.status.outcome == "paused"
        assert not run.status.failures


async def test_a_rail_that_is_not_set_up_is_said_before_the_run_goes_on(tmp_path: Path) -> None:
    async with toy(tmp_path, one=Queueing("one", tmp_path / "one")) as market:
        run = await left_behind(market, asking(), 1)
        means = market.means
        object.__setattr__(means, "rails", {})
        with pytest.raises(ConfigError, match="'toy', which is not set up"):
            await runs.resume(means, run)
        assert (await history.read(market.journal, run)).outcome == "paused"


async def test_an_answer_that_is_no_result_is_the_providers_fault(tmp_path: Path) -> None:
    class Odd(FakeProvider):
        async def result(self, attempt: Attempt) -> Result:
            found = await super().result(attempt)
            return Result(None, {"input": 0.5}, found.price)  # type: ignore[arg-type, dict-item]

    async with toy(tmp_path, odd=Odd("odd", tmp_path / "odd")) as market:
        with pytest.raises(RunPaused, match="made no sense"):
            await market.run(asking(retries=0))


async def test_an_answer_that_is_no_result_after_a_restart_is_bought_elsewhere(
    tmp_path: Path,
) -> None:
    """A provider that was asked again after a crash could fail the run by it."""

    class Odd(Queueing):
        async def result(self, attempt: Attempt) -> Result:
            found = await super().result(attempt)
            return Result(None, {"input": 0.5}, found.price)  # type: ignore[arg-type, dict-item]

    odd, two = Odd("odd", tmp_path / "odd"), FakeProvider("two", tmp_path / "two", factor=2)
    async with toy(tmp_path, odd=odd, two=two) as market:
        run = await left_behind(market, asking(retries=0), 1)
        odd.hang = False
        odd.before = lambda task, attempt: Refused("not again", provider="odd")
        result = await (await runs.resume(market.means, run)).result()
        assert odd.executions
        assert [receipt.attempt.provider for receipt in result.receipts] == ["two"]


# -- runs that must come to an end ---------------------------------------------------------------


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, SystemExit])
@pytest.mark.parametrize("how", ["thread", "loop"])
async def test_whatever_a_function_raises_ends_its_node(
    tmp_path: Path, error: type[BaseException], how: str
) -> None:
    def in_thread() -> None:
        raise error

    async def on_loop() -> None:
        raise asyncio.CancelledError

    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        graph.local("raises", in_thread if how == "thread" else on_loop, retries=0)
        async with asyncio.timeout(limit(5)):
            with pytest.raises(RunPaused, match="raises: RuntimeError"):
                await market.run(graph)


@pytest.mark.parametrize(
    ("kind", "method"),
    [(Infer, "task"), (Infer, "items"), (Infer, "gather"), (Infer, "fault_in"), (Source, "run")],
)
async def test_a_kind_that_ends_the_process_ends_its_node_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, method: str
) -> None:
    """Kinds may be other packages'; a SystemExit in a task would end the event loop."""
    reached = []

    def leave(*_: object) -> None:
        reached.append(method)
        sys.exit(3)

    monkeypatch.setattr(kind, method, leave)
    async with toy(tmp_path) as market:
        with pytest.raises((RunPaused, RunFailed), match="SystemExit"):
            await market.run(mapped(tmp_path, 2))
    assert reached


async def test_following_a_run_looks_for_its_end_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a run of another process has ended is read from all of its events."""
    monkeypatch.setattr(event_stream, "EVENTS_AT_ONCE", 2)
    looked = []

    class Ended:
        async def has_ended(self) -> bool:
            looked.append(1)
            return True

        async def wait(self) -> None:
            raise AssertionError("it has ended")

    async with toy(tmp_path) as market:
        result = await market.run(asking())
        run = result.receipts[0].attempt.run
        events = [event async for event in event_stream.follow(market.journal, run, Ended())]
    assert len(events) >= 4
    assert len(looked) == 1


async def test_a_timeout_counts_the_function_and_not_the_wait_for_a_thread(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        for number in range(32):
            graph.local(f"n{number}", lambda: time.sleep(0.05), timeout=2.0, retries=0)
        await market.run(graph)


async def test_functions_that_wait_for_a_thread_are_not_called_after_a_stop(tmp_path: Path) -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        time.sleep(0.1)

    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        for number in range(40):
            graph.local(f"n{number}", work)
        run = await runs.start(market.means, await market.plan(graph))
        await until(lambda: len(calls) >= 4)
        await run.stop()
        before = len(calls)
        await asyncio.sleep(0.5)
        assert len(calls) <= before + 4


async def test_a_request_to_cancel_is_heard_after_a_look_that_failed(tmp_path: Path) -> None:
    async with toy(tmp_path, one=Queueing("one", tmp_path / "one")) as market:
        run = await runs.start(market.means, await market.plan(asking()))
        await until(lambda: run.status.purchases)
        real, looks = market.journal.commit, []

        def commit(work: Any) -> Any:
            looks.append(work)
            if len(looks) > 1:
                return real(work)
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreUnavailable("database is locked"))
            return failed

        market.journal.commit = commit  # type: ignore[method-assign]
        await until(lambda: looks)
        await real(lambda tx: tx.append(e.WALLET, e.CancelAsked(run=run.id)))
        with pytest.raises(RunFailed, match="was cancelled"):
            await run.result()


async def test_more_left_attempts_than_lanes_open_no_more_lanes(tmp_path: Path) -> None:
    """What was delivered and not settled is open too: twice as many as lanes were let through."""
    one = Counting("one", tmp_path / "one", lanes=2)
    rail = Stuck()
    async with toy(tmp_path, one=one, rail=rail) as market:
        graph = JobGraph("wide")
        for number in range(12):
            graph.infer(f"n{number}", model="m", prompt=f"{number}")
        run = await runs.start(market.means, await market.plan(graph))
        await until(lambda: sum(len(p.open) for p in run.status.purchases.values()) > 3)
        await run.stop()
        rail.stuck = False
        result = await (await runs.resume(market.means, run.id)).result()
        assert len(result.receipts) == 12
        assert one.highest == 2


class Counting(FakeProvider):
    """Counts how many tasks it is at, at once."""

    now = highest = 0

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        self.now += 1
        self.highest = max(self.highest, self.now)
        try:
            await asyncio.sleep(0.03)
        finally:
            self.now -= 1
        return await super().submit(task, offer, attempt, payment)


class Stuck(ToyRail):
    """Settles nothing for as long as it is told, which leaves what was delivered open."""

    stuck = True

    def settle(self, tx: Any, attempt: Attempt, result: Result) -> Any:
        if self.stuck:
            raise ak.PaymentError("not now")
        return super().settle(tx, attempt, result)
