"""Who decides while a run goes on: deadlines, stage limits, people who agree, higher budgets."""

import asyncio
import io
import json
import sys
import time
from pathlib import Path

import pytest
from support.toy_market import Toy, toy, usdc

import agentkit as ak
from agentkit.errors import (
    ConfigError,
    ExecuteTimedOut,
    OffersTimedOut,
    OverBudget,
    RunPaused,
    SettleTimedOut,
    StoreTimedOut,
    SubmitTimedOut,
    TimedOut,
)
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.market.attempt import Attempt, JobStatus, Payment, Result
from agentkit.market.offer import Offer
from agentkit.market.task import Task
from agentkit.runtime import approve
from agentkit.runtime import run as runs
from agentkit.runtime.approve import Approval, Question
from agentkit.runtime.deadline import Deadline
from agentkit.testing.fakes import FakeProvider


def asking(**more: object) -> JobGraph:
    graph = JobGraph("asking")
    graph.infer("ask", model="m", prompt="hello", retries=0, **more)
    return graph


async def reasons(market: Toy, run: str) -> list[str]:
    events = await market.journal.history(run)
    return [event.reason for event in events if isinstance(event, e.AttemptClosed)]


# -- stages of a try -----------------------------------------------------------------------------


class Slow(FakeProvider):
    """Is slow at one stage, and remembers what it was asked to stop."""

    slow_at = ""
    stopped = 0

    async def _stage(self, name: str) -> None:
        if self.slow_at == name:
            await asyncio.sleep(30)

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        await self._stage("submit")
        return await super().submit(task, offer, attempt, payment)

    async def result(self, attempt: Attempt) -> Result:
        await self._stage("execute")
        return await super().result(attempt)

    async def cancel(self, attempt: Attempt) -> None:
        self.stopped += 1
        await super().cancel(attempt)


@pytest.mark.parametrize(
    ("stage", "said"),
    [("submit", "handing the task over took longer than 0.05 s"), ("execute", "execution took")],
)
async def test_a_provider_that_is_slow_at_a_stage_is_left_for_another(
    tmp_path: Path, stage: str, said: str
) -> None:
    slow = Slow("slow", tmp_path / "slow")
    slow.slow_at = stage
    good = FakeProvider("good", tmp_path / "good", factor=2)
    async with toy(tmp_path, slow=slow, good=good) as market:
        started = time.monotonic()
        result = await market.run(asking(timeout=ak.Timeouts(**{stage: 0.05})))
        assert time.monotonic() - started < 5
        assert [receipt.attempt.provider for receipt in result.receipts] == ["good"]
        assert slow.stopped == (stage == "execute")
        assert len(await reasons(market, result.run_id)) == 1


async def test_a_plain_number_bounds_a_whole_try(tmp_path: Path) -> None:
    slow = Slow("slow", tmp_path / "slow")
    slow.slow_at = "submit"
    async with toy(tmp_path, slow=slow) as market:
        with pytest.raises(RunPaused, match=r"execution took longer than 0\.1 s"):
            await market.run(asking(timeout=0.1))


async def test_a_slow_store_leaves_the_purchase_to_be_found_again(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        store = market.means.store

        async def late(artifact: object) -> None:
            await asyncio.sleep(30)

        market.store = _with_put(store, late)
        graph = JobGraph("big")
        graph.infer("ask", model="m", prompt="x" * 300_000, timeout=ak.Timeouts(store=0.05))
        with pytest.raises(RunPaused, match=r"storing the result took longer than 0\.05 s") as why:
            await market.run(graph)
        market.store = store
        result = await (await runs.resume(market.means, why.value.run_id)).result()
        assert len(market.executions) == 1
        assert len(result.receipts) == 1


def _with_put(store: object, put: object) -> object:
    class Late(type(store)):  # type: ignore[misc]
        pass

    late = Late(Path("nowhere"))
    late.put = put
    return late


def test_each_stage_has_an_error_of_its_own() -> None:
    errors = {
        OffersTimedOut(1.0),
        SubmitTimedOut(1.0),
        ExecuteTimedOut(1.0),
        SettleTimedOut(1.0),
        StoreTimedOut(1.0),
    }
    assert len({type(error) for error in errors}) == 5
    assert len({str(error) for error in errors}) == 5
    assert all(isinstance(error, TimedOut) and error.seconds == 1.0 for error in errors)


async def test_a_function_that_takes_too_long_pauses_the_run(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        graph.local("wait", asyncio.Event().wait, timeout=0.05, retries=0)
        with pytest.raises(RunPaused, match=r"wait: this machine: execution took longer"):
            await market.run(graph)


async def test_a_function_is_tried_again_as_often_as_it_may(tmp_path: Path) -> None:
    calls = []

    def flaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("the disk hiccups")
        return len(calls)

    async with toy(tmp_path) as market:
        graph = JobGraph("g")
        told = graph.local("flaky", flaky, retries=2)
        assert (await market.run(graph))[told].value == 3


# -- the deadline of the whole run ---------------------------------------------------------------


async def test_a_run_pauses_at_its_deadline_and_spends_nothing_more(tmp_path: Path) -> None:
    slow = Slow("slow", tmp_path / "slow")
    slow.slow_at = "execute"
    async with toy(tmp_path, slow=slow) as market:
        plan = await market.plan(asking(), deadline=0.6)
        run = await runs.start(market.means, plan)
        with pytest.raises(RunPaused, match="its deadline has passed") as raised:
            await run.result()
        assert raised.value.command.endswith("--plan plan.json")
        assert not run.status.receipts


async def test_what_is_left_of_a_deadline_is_parted_by_what_has_to_follow(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        for provider in market.providers.values():
            provider.delay = 0.5
        graph = JobGraph("chain")
        one = graph.infer("one", model="m", prompt="a")
        two = graph.infer("two", model="m", prompt="{one}", inputs={"one": one})
        graph.infer("three", model="m", prompt="{two}", inputs={"two": two})
        deadline = Deadline(await market.plan(graph, deadline=30))
        shares = [deadline.share(name) for name in ("one", "two", "three")]
        assert shares == [pytest.approx(s, abs=0.5) for s in (10, 15, 30)]
        assert Deadline(await market.plan(graph)).share("one") is None


@pytest.mark.alone
async def test_a_try_that_would_eat_the_deadline_of_the_rest_is_cut(tmp_path: Path) -> None:
    slow = Slow("slow", tmp_path / "slow")
    slow.slow_at = "execute"
    good = FakeProvider("good", tmp_path / "good", factor=2)
    async with toy(tmp_path, slow=slow, good=good) as market:
        graph = JobGraph("two")
        one = graph.infer("one", model="m", prompt="a", retries=0)
        graph.infer("two", model="m", prompt="{one}", inputs={"one": one}, retries=0)
        plan = await market.plan(graph, deadline=2.0)
        result = await (await runs.start(market.means, plan)).result()
        assert {receipt.attempt.provider for receipt in result.receipts} == {"good"}


# -- people --------------------------------------------------------------------------------------


def agreeing(answer: object, above: str | None = None) -> tuple[Approval, list[Question]]:
    asked: list[Question] = []

    def ask(question: Question) -> bool:
        asked.append(question)
        return answer  # type: ignore[return-value]

    limit = usdc(above) if above else None
    return Approval(ask, above=limit), asked


async def started(market: Toy, graph: JobGraph, approval: Approval) -> runs.Run:
    return await runs.start(market.asking(approval), await market.plan(graph))


async def test_a_marked_node_is_bought_once_somebody_agreed(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        approval, asked = agreeing(True)
        run = await started(market, asking(approve=True), approval)
        assert (await run.result()).paid
        (question,) = asked
        assert (question.node, question.amount) == ("ask", run.plan.node("ask").at_most)
        assert "may infer node 'ask' of 'asking' cost up to" in str(question)
        assert run.status.approved == {"ask": question.amount}


@pytest.mark.parametrize("answer", [False, None, "yes", 1])
async def test_anything_but_true_is_a_no_and_nothing_is_bought(
    tmp_path: Path, answer: object
) -> None:
    async with toy(tmp_path) as market:
        approval, _ = agreeing(answer)
        run = await started(market, asking(approve=True), approval)
        with pytest.raises(RunPaused, match="nobody agreed to") as raised:
            await run.result()
        assert market.executions == []
        assert raised.value.command == f"agentkit resume {run.id} --approve ask"
        again = await runs.resume(market.means, run.id, approved=["ask"])
        assert (await again.result()).paid


async def test_no_answer_in_time_is_a_no(tmp_path: Path) -> None:
    async def silent(question: Question) -> bool:
        await asyncio.sleep(30)
        return True

    async with toy(tmp_path) as market:
        run = await started(market, asking(approve=True), Approval(silent, patience=0.05))
        with pytest.raises(RunPaused, match="nobody agreed"):
            await run.result()
        assert market.executions == []


@pytest.mark.parametrize(("above", "questions"), [("0.0000001", 1), ("1", 0)])
async def test_dear_nodes_need_consent_and_cheap_ones_do_not(
    tmp_path: Path, above: str, questions: int
) -> None:
    async with toy(tmp_path) as market:
        approval, asked = agreeing(True, above="0.000001" if questions else above)
        assert (await (await started(market, asking(), approval)).result()).paid
        assert len(asked) == questions


async def test_what_was_agreed_to_is_not_asked_again(tmp_path: Path) -> None:
    slow = Slow("slow", tmp_path / "slow")
    slow.slow_at = "execute"
    async with toy(tmp_path, slow=slow) as market:
        approval, asked = agreeing(True)
        run = await started(market, asking(approve=True), approval)
        while not run.status.purchases:
            await asyncio.sleep(0.01)
        await run.stop()
        slow.slow_at = ""
        result = await (await runs.resume(market.asking(approval), run.id)).result()
        assert len(asked) == 1
        assert len(result.receipts) == 1


def test_a_webhook_in_clear_over_the_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="asked safely"):
        approve.webhook("http://example.com/hook")


@pytest.mark.parametrize(("typed", "said"), [("y\n", True), ("yes\n", True), ("\n", False)])
async def test_the_terminal_is_asked_with_no_as_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, said: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    question = Question(run="r", graph="g", node="n", kind="infer", provider="p", amount=usdc("1"))
    assert await approve.console().agreed(question) is said
    assert "cost up to 1.00 USDC at p? [y/N]" in capsys.readouterr().err


async def test_nobody_at_the_terminal_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    question = Question(run="r", graph="g", node="n", kind="infer", provider="p", amount=usdc("1"))
    assert await approve.console().agreed(question) is False


# -- higher budgets ------------------------------------------------------------------------------


def lossy(folder: Path) -> FakeProvider:
    return FakeProvider("one", folder / "one", finds=False, pays="with_request")


async def test_a_run_that_used_its_budget_up_goes_on_under_a_higher_one(tmp_path: Path) -> None:
    provider = lossy(tmp_path)
    provider.after = lambda task, attempt: ak.ProviderError("reset", provider="one", unknown=True)
    async with toy(tmp_path, one=provider) as market:
        plan = await market.plan(asking(), budget="0.00015")
        run = await runs.start(market.means, plan)
        with pytest.raises(RunPaused, match="unknown"):
            await run.result()
        provider.after = lambda task, attempt: None
        again = await runs.resume(market.means, run.id, rebuy=True)
        with pytest.raises(RunPaused, match="above the limit budget"):
            await again.result()
        more = await runs.resume(market.means, run.id, rebuy=True, budget=usdc("0.01"))
        assert (await more.result()).paid
        totals = await market.journal.commit(lambda tx: tx.every(r.Total))
        assert {row.scope: row.amount for row in totals}["ever"] <= usdc("0.01")


async def test_a_budget_cannot_be_lowered_below_what_is_set_aside(tmp_path: Path) -> None:
    slow = Slow("slow", tmp_path / "slow")
    slow.slow_at = "execute"
    async with toy(tmp_path, slow=slow) as market:
        run = await runs.start(market.means, await market.plan(asking()))
        with pytest.raises(OverBudget, match="above the limit budget"):
            await run.raise_budget(usdc("0.000001"))
        await run.raise_budget(usdc("2"))
        assert run.plan.budget == usdc("2")
        await run.cancel()


# -- seeing --------------------------------------------------------------------------------------


async def test_every_event_is_one_line_of_json(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        run = await runs.start(market.means, await market.plan(asking()))
        lines = [json.loads(line) async for line in run.lines()]
        names = [line["event"] for line in lines]
        assert names == ["RunStarted", "AttemptOpened", "NodeDone", "RunFinished"]
        assert lines[2]["outputs"][0]["text"] == "answer to: hello"
