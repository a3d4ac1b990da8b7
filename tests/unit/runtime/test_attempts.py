"""However a run ends: nothing stays open, nothing stays held, and what is spent was foreseen."""

import asyncio
import json
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.timing import limit, until
from support.toy_market import Toy, toy, usdc

from agentkit.errors import (
    JournalDamaged,
    ProtocolBroken,
    RateLimited,
    RunFailed,
    RunPaused,
    SettlementFailed,
    StoreUnavailable,
    Unavailable,
    WrongInput,
)
from agentkit.graph.builder import JobGraph
from agentkit.journal import records as r
from agentkit.market.attempt import Attempt, JobStatus, Result
from agentkit.market.plan import Plan
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.runtime import history
from agentkit.runtime import run as runs
from agentkit.testing.fakes import FakeProvider, ToyRail


def asking(*names: str, prompt: str = "hello") -> JobGraph:
    graph = JobGraph("asking")
    for name in names or ("ask",):
        graph.infer(name, model="m", prompt=prompt, retries=0)
    return graph


async def nothing_left(market: Toy) -> None:
    """No hold, nothing reserved, no attempt without an end."""

    def look(tx: Transaction) -> tuple[list[r.Hold], list[r.Account], list[r.Reservation]]:
        return tx.every(r.Hold), tx.every(r.Account), tx.every(r.Reservation)

    holds, accounts, reservations = await market.journal.commit(look)
    assert holds == []
    assert not any(account.reserved for account in accounts)
    assert "open" not in {reservation.standing for reservation in reservations}


async def paused(market: Toy, graph: JobGraph, plan: Plan | None = None) -> RunPaused:
    run = await runs.start(market.means, plan or await market.plan(graph))
    with pytest.raises(RunPaused) as raised:
        await run.result()
    return raised.value


class Endless(FakeProvider):
    """Takes every task and never comes to an end of it."""

    async def result(self, attempt: Attempt) -> Result:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_run_that_fails_leaves_no_attempt_open(tmp_path: Path) -> None:
    """The purchase is left behind by a stop, and then the run fails."""
    async with toy(tmp_path, endless=Endless("endless", tmp_path / "p")) as market:
        run = await runs.start(market.means, await market.plan(asking()))
        await until(lambda: run.status.purchases)
        run._context.stop.stop()
        run._scheduler._fail("ask", WrongInput("it cannot be done"))
        with pytest.raises(RunFailed, match="it cannot be done"):
            await run.result()
        assert [len(p.attempts) for p in run.status.purchases.values()] == [1]
        await nothing_left(market)


class Stuck(ToyRail):
    """A rail that cannot settle, for as long as it is told."""

    stuck = True

    def settle(self, tx: Transaction, attempt: Attempt, result: Result) -> tuple[Receipt, list]:  # type: ignore[type-arg]
        if self.stuck:
            raise SettlementFailed("the channel is exhausted")
        receipt, messages = super().settle(tx, attempt, result)
        return receipt, list(messages)


async def test_what_was_delivered_and_cannot_be_paid_is_paid_later_and_bought_once(
    tmp_path: Path,
) -> None:
    rail = Stuck()
    async with toy(tmp_path, rail=rail) as market:
        why = await paused(market, asking())
        assert "delivered 'ask' and cannot be paid: the channel is exhausted" in why.why
        assert why.exit_code == 4
        rail.stuck = False
        result = await (await runs.resume(market.means, why.run_id)).result()
        assert [receipt.standing for receipt in result.receipts] == ["paid"]
        assert len(market.executions) == 1
        await nothing_left(market)


class Odd(FakeProvider):
    """An adapter that lets an error out that is not one of ours."""

    async def result(self, attempt: Attempt) -> Result:
        raise KeyError("surprise")


@pytest.mark.parametrize("pays", ["on_delivery", "with_request"])
async def test_a_stray_error_of_an_adapter_is_a_providers_error(tmp_path: Path, pays: str) -> None:
    odd = Odd("odd", tmp_path / "odd", finds=False, pays=pays)  # type: ignore[arg-type]
    async with toy(tmp_path, odd=odd) as market:
        why = await paused(market, asking())
        assert why.uncertain == (pays == "with_request")
        state = await history.read(market.journal, why.run_id)
        assert [x.standing for x in state.receipts] == ["uncertain"] * (pays == "with_request")
        assert "surprise" in why.why or why.uncertain
        assert not any(p.open for p in state.purchases.values())


async def test_a_provider_that_wants_a_days_rest_is_not_waited_for(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        market.providers["one"].before = lambda task, attempt: RateLimited(retry_after=86400)
        began = time.monotonic()
        graph = JobGraph("patient")
        graph.infer("ask", model="m", prompt="hello", retries=1)
        async with asyncio.timeout(limit(10)):
            result = await market.run(graph)
        assert time.monotonic() - began < 5
        assert result.receipts[0].attempt.provider == "two"


async def test_a_function_that_never_returns_does_not_hold_a_stop_back(tmp_path: Path) -> None:
    begun, never = threading.Event(), threading.Event()

    def hangs() -> None:
        begun.set()
        never.wait(limit(30))

    async with toy(tmp_path) as market:
        graph = JobGraph("hangs")
        graph.local("hangs", hangs)
        run = await runs.start(market.means, await market.plan(graph))
        await until(begun.is_set)
        async with asyncio.timeout(limit(5)):
            await run.stop()
        assert run.status.outcome == "paused"
        never.set()


# -- what is spent was foreseen ------------------------------------------------------------------


async def test_losses_are_bought_again_within_the_hold_and_no_further(tmp_path: Path) -> None:
    """Two providers lose every answer: what the plan foresaw is spent, then the run pauses."""
    blind = {
        name: FakeProvider(name, tmp_path / name, finds=False, pays="with_request")
        for name in ("blind", "deaf")
    }
    for provider in blind.values():
        provider.after = lambda task, attempt: Unavailable("reset", unknown=True)
    async with toy(tmp_path, **blind) as market:
        graph = JobGraph("lost")
        graph.infer("ask", model="m", prompt="hello", on_unknown="rebuy", retries=2)
        plan = await market.plan(graph)
        run = await runs.start(market.means, plan)
        with pytest.raises(RunPaused, match="above the limit hold") as raised:
            await run.result()
        assert raised.value.exit_code == 5  # a lost purchase is more than a pause
        spent = sum(receipt.amount.units for receipt in run.status.receipts)
        assert spent == plan.at_most.units
        assert len(market.executions) == 3


async def test_more_rows_than_were_priced_are_not_bought(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"n": 1}\n' * 3)
    async with toy(tmp_path) as market:
        graph = JobGraph("grown")
        rows = graph.data("rows", source="rows.jsonl")
        graph.infer("ask", model="m", over=rows, prompt="{n}")
        plan = await market.plan(graph)
        source.write_text('{"n": 1}\n' * 4)  # after the price was known
        why = await paused(market, graph, plan)
        assert "maps over 4 rows, and the plan priced 3" in why.why
        assert market.executions == []
        run = await runs.resume(market.means, why.run_id, plan=await market.plan(graph))
        assert len((await run.result()).receipts) == 4


async def test_a_list_in_json_is_counted_by_its_rows(tmp_path: Path) -> None:
    rows = [{"text": f"row {n}\n" * 3} for n in range(7)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.csv").write_text("text\n" + '"one\ntwo"\n' * 5)
    async with toy(tmp_path) as market:
        for name, count in (("rows.json", 7), ("rows.csv", 5)):
            graph = JobGraph("counted")
            table = graph.data("rows", source=name)
            graph.infer("ask", model="m", over=table, prompt="{text}")
            plan = await market.plan(graph)
            assert plan.node("ask").items == count
            run = await runs.start(market.means, plan)
            assert len((await run.result()).receipts) == count


# -- a new plan ----------------------------------------------------------------------------------


async def test_a_new_plan_holds_the_rest_alone_under_the_old_budget(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = asking("a", "b")
        for provider in market.providers.values():
            provider.before = lambda task, attempt: (
                Unavailable("down") if attempt.node == "b" else None
            )
        first = await market.plan(graph, budget="0.000528")  # both at their dearest
        why = await paused(market, graph, first)
        for provider in market.providers.values():
            provider.before = lambda task, attempt: None
        again = await market.plan(graph, budget="1")
        again = again.model_copy(update={"budget": None})
        run = await runs.resume(market.means, why.run_id, plan=again)
        assert run.plan.budget == first.budget
        result = await run.result()
        assert len(market.executions) == 2
        assert result.paid <= usdc("0.000528")
        await nothing_left(market)


async def test_a_plan_of_another_graph_is_refused(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        for provider in market.providers.values():
            provider.before = lambda task, attempt: Unavailable("down")
        why = await paused(market, asking())
        other = await market.plan(asking(prompt="something else"))
        with pytest.raises(WrongInput, match="the plan is for graph"):
            await runs.resume(market.means, why.run_id, plan=other)
        assert market.executions == []


# -- nobody can say ------------------------------------------------------------------------------


class Busy(FakeProvider):
    """Can be asked what became of an attempt, and is too busy to say."""

    asked = 0

    async def find(self, attempt: Attempt) -> JobStatus | None:
        self.asked += 1
        raise ProtocolBroken("come back later")


async def test_a_paid_attempt_is_not_bought_again_while_its_provider_does_not_say(
    tmp_path: Path,
) -> None:
    busy = Busy("busy", tmp_path / "busy", pays="with_request")
    busy.after = lambda task, attempt: Unavailable("reset", unknown=True)
    async with toy(tmp_path, busy=busy) as market:
        why = await paused(market, asking())
        assert busy.asked == 1
        assert why.exit_code == 5
        assert len(market.executions) == 1
        state = await history.read(market.journal, why.run_id)
        assert [len(p.open) for p in state.purchases.values()] == [1]  # still to be asked about


async def test_what_was_never_sent_is_not_counted_as_spent(tmp_path: Path) -> None:
    """The log has to be on Arweave first, and the gateway is down."""
    blind = FakeProvider("blind", tmp_path / "b", finds=False, pays="with_request")
    reached: list[Money] = []

    async def gateway_is_down(at_most: Money) -> None:
        reached.append(at_most)
        raise StoreUnavailable("no gateway answers")

    async with toy(tmp_path, blind=blind) as market:
        means = replace(market.means, before_pay=gateway_is_down)
        run = await runs.start(means, await market.plan(asking()))
        with pytest.raises(RunPaused, match="not on Arweave") as raised:
            await run.result()
        assert len(reached) == 1
        assert not raised.value.uncertain
        result = await (await runs.resume(market.means, run.id)).result()
        assert [receipt.standing for receipt in result.receipts] == ["paid"]
        assert len(market.executions) == 1


async def test_a_changed_event_is_not_shown_as_if_nothing_were(tmp_path: Path) -> None:
    import sqlite3

    async with toy(tmp_path) as market:
        run_id = (await market.run(asking())).run_id
    with closing(sqlite3.connect(tmp_path / "home" / "state.db", isolation_level=None)) as db:
        changed = db.execute(
            "update events set body=replace(body, '0.0000', '9.0000') where stream=? and"
            " kind='NodeDone'",
            (run_id,),
        )
        assert changed.rowcount == 1
    async with toy(tmp_path) as market:
        with pytest.raises(JournalDamaged, match=run_id):
            await history.read(market.journal, run_id)
