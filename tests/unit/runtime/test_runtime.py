"""Runs on fakes: what is bought, what is not, and what a stopped run leaves."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from support.toy_market import GatedProvider, Toy, toy, usdc

from agentkit.artifacts import Dataset, Json, Text
from agentkit.errors import (
    BadOutput,
    OverBudget,
    ProviderError,
    RateLimited,
    Refused,
    RunFailed,
    RunNotFound,
    RunPaused,
    Unavailable,
)
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Result
from agentkit.market.task import Task
from agentkit.runtime import history
from agentkit.runtime import run as runs
from agentkit.testing.fakes import FakeProvider, ToyRail


def hello(**more: object) -> JobGraph:
    graph = JobGraph("hello")
    graph.infer("greet", model="m", prompt="hello", **more)
    return graph


def table(folder: Path, rows: int) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"n": n, "text": f"row {n}"}) + "\n" for n in range(rows)))
    return path.name


def mapped(folder: Path, rows: int) -> JobGraph:
    graph = JobGraph("mapped")
    source = graph.data("rows", source=table(folder, rows))
    graph.infer("label", model="m", over=source, prompt="{text}?", max_items=50)
    return graph


async def totals(market: Toy) -> dict[str, int]:
    rows = await market.journal.commit(lambda tx: tx.every(r.Total))
    return {row.scope: row.amount.units for row in rows}


async def test_a_mapped_node_gives_the_rows_back_with_the_answers(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        result = await market.run(mapped(tmp_path, 9))
        rows = result["label"]
        assert isinstance(rows, Dataset)
        assert [row["label"] for row in rows.rows()] == [f"answer to: row {n}?" for n in range(9)]
        assert len(result.receipts) == 9 == len(market.executions)
        assert result.paid.units == sum(receipt.amount.units for receipt in result.receipts) > 0
        assert (await totals(market))["ever"] == result.paid.units
        assert (await totals(market))["held"] == 0


async def test_functions_run_here_with_the_artifacts(tmp_path: Path) -> None:
    graph = hello()

    def shout(text: Text) -> str:
        return text.text.upper()

    async with toy(tmp_path) as market:
        ref = graph.local("shout", shout, graph.ref("greet"))
        result = await market.run(graph)
        assert result[ref].value == "ANSWER TO: HELLO"
        assert isinstance(result[ref], Json)


async def test_a_function_that_fails_pauses_the_run_and_names_the_node(tmp_path: Path) -> None:
    graph = hello()

    def broken(text: Text) -> str:
        raise ZeroDivisionError("oh no")

    graph.local("broken", broken, graph.ref("greet"))
    async with toy(tmp_path) as market:
        with pytest.raises(RunPaused, match="broken: ZeroDivisionError: oh no") as raised:
            await market.run(graph)
        assert raised.value.exit_code == 4
        assert raised.value.mend == "broken"
        assert (await totals(market))["held"] == 0


# -- fail-over -----------------------------------------------------------------------------------


class Faults:
    """Raises errors in order, then nothing; counts how often it was reached."""

    def __init__(self, *errors: ProviderError) -> None:
        self.errors, self.reached = list(errors), 0

    def __call__(self, task: Task, attempt: Attempt) -> ProviderError | None:
        if not self.errors:
            return None
        self.reached += 1
        return self.errors.pop(0)


async def test_a_provider_that_is_down_is_passed_over(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        faults = Faults(*(Unavailable("down", provider="one") for _ in range(9)))
        market.providers["one"].before = faults
        result = await market.run(hello())
        assert faults.reached == 3  # the first try and two retries
        assert [receipt.attempt.provider for receipt in result.receipts] == ["two"]
        assert len(market.executions) == 1


async def test_a_refusal_is_not_tried_again_with_the_same_provider(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        faults = Faults(*(Refused("no", provider="one") for _ in range(9)))
        market.providers["one"].before = faults
        result = await market.run(hello())
        assert faults.reached == 1
        assert result.receipts[0].attempt.n == 1


async def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        market.providers["one"].before = Faults(RateLimited(provider="one", retry_after=0.5))
        started = time.monotonic()
        result = await market.run(hello())
        assert time.monotonic() - started >= 0.5
        assert result.receipts[0].attempt.provider == "one"


async def test_when_all_offers_fail_the_run_pauses_and_can_be_resumed(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        for name, provider in market.providers.items():
            provider.before = Faults(*(Refused("shut", provider=name) for _ in range(9)))
        with pytest.raises(RunPaused, match="one: shut; two: shut") as paused:
            await market.run(hello())
        assert paused.value.exit_code == 4
        assert paused.value.command == f"agentkit resume {paused.value.run_id}"
        assert (await totals(market)).get("ever", 0) == 0
        assert (await totals(market))["held"] > 0
        for provider in market.providers.values():
            provider.before = Faults()
        run = await runs.resume(market.means, paused.value.run_id)
        result = await run.result()
        assert result.paid and (await totals(market))["held"] == 0


async def test_an_answer_lost_after_the_work_is_found_not_bought_again(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        faults = Faults(Unavailable("connection reset", provider="one", unknown=True))
        market.providers["one"].after = faults
        result = await market.run(hello())
        assert faults.reached == 1
        assert len(market.executions) == 1
        assert [receipt.standing for receipt in result.receipts] == ["paid"]


async def test_a_request_lost_before_the_work_is_sent_again(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        faults = Faults(Unavailable("connection reset", provider="one", unknown=True))
        market.providers["one"].before = faults
        result = await market.run(hello())
        assert faults.reached == 1
        assert result.receipts[0].attempt.n == 1
        assert len(market.executions) == 1


# -- uncertainty ---------------------------------------------------------------------------------


def blind(folder: Path, **more: object) -> FakeProvider:
    """A provider that cannot be asked, paid with the request."""
    return FakeProvider("blind", folder / "blind", finds=False, pays="with_request", **more)  # type: ignore[arg-type]


async def test_an_unknown_outcome_pauses_and_counts_as_spent(tmp_path: Path) -> None:
    async with toy(tmp_path, blind=blind(tmp_path)) as market:
        faults = Faults(Unavailable("reset", provider="blind", unknown=True))
        market.providers["blind"].after = faults
        with pytest.raises(RunPaused, match="unknown") as paused:
            await market.run(hello())
        assert faults.reached == 1
        assert paused.value.uncertain
        assert paused.value.exit_code == 5
        assert paused.value.command.endswith("--rebuy")
        state = await history.read(market.journal, paused.value.run_id)
        assert [receipt.standing for receipt in state.receipts] == ["uncertain"]
        assert (await totals(market))["ever"] == state.receipts[0].amount.units > 0
        assert len(market.executions) == 1

        again = await runs.resume(market.means, paused.value.run_id)
        with pytest.raises(RunPaused):
            await again.result()
        assert len(market.executions) == 1

        run = await runs.resume(market.means, paused.value.run_id, rebuy=True)
        result = await run.result()
        assert len(market.executions) == 2
        assert sorted(receipt.standing for receipt in result.receipts) == ["paid", "uncertain"]
        assert (await totals(market))["ever"] == (result.paid + result.uncertain).units


async def test_a_rebuy_that_is_lost_too_pauses_again(tmp_path: Path) -> None:
    async with toy(tmp_path, blind=blind(tmp_path)) as market:
        lost = [Unavailable("reset", provider="blind", unknown=True) for _ in range(5)]
        market.providers["blind"].after = faults = Faults(*lost)
        with pytest.raises(RunPaused) as paused:
            await market.run(hello())
        run = await runs.resume(market.means, paused.value.run_id, rebuy=True)
        with pytest.raises(RunPaused) as again:
            await run.result()
        assert again.value.uncertain
        assert faults.reached == 2 == len(market.executions)


async def test_small_uncertain_purchases_are_bought_again_within_the_hold(tmp_path: Path) -> None:
    allowance = Allowance(rebuy_below=usdc("0.01"))
    async with toy(tmp_path, allowance=allowance, blind=blind(tmp_path)) as market:
        faults = Faults(Unavailable("reset", provider="blind", unknown=True))
        market.providers["blind"].after = faults
        plan = await market.plan(hello())
        assert plan.at_most == plan.nodes[0].offer.at_most * 3  # type: ignore[union-attr]
        result = await market.run(hello())
        assert faults.reached == 1
        assert len(market.executions) == 2
        assert (result.paid + result.uncertain) <= plan.at_most


async def test_a_node_may_ask_for_rebuying(tmp_path: Path) -> None:
    async with toy(tmp_path, blind=blind(tmp_path)) as market:
        market.providers["blind"].after = Faults(Unavailable("reset", unknown=True))
        await market.run(hello(on_unknown="rebuy"))
        assert len(market.executions) == 2


async def test_paid_on_delivery_is_never_uncertain(tmp_path: Path) -> None:
    provider = FakeProvider("shy", tmp_path / "shy", finds=False)
    async with toy(tmp_path, shy=provider) as market:
        provider.after = Faults(Unavailable("reset", provider="shy", unknown=True))
        result = await market.run(hello())
        assert [receipt.standing for receipt in result.receipts] == ["paid"]
        assert len(market.executions) == 2


# -- verify before pay ---------------------------------------------------------------------------


class Liar(FakeProvider):
    """A provider whose result is changed before it is handed over."""

    def __init__(self, folder: Path, change: object) -> None:
        super().__init__("liar", folder / "liar")
        self.change = change

    async def result(self, attempt: Attempt) -> Result:
        assert callable(self.change)
        return self.change(await super().result(attempt))  # type: ignore[no-any-return]


def with_price(units: int) -> object:
    return lambda result: Result(
        result.outputs, result.usage, type(result.price)(units, result.price.asset)
    )


@pytest.mark.parametrize(
    "change",
    [
        with_price(10**9),
        with_price(0),
        lambda result: Result(result.outputs, {"input": 10**9}, usdc("1000")),
        lambda result: Result(result.outputs, {**result.usage, "extra": 5}, result.price),
        lambda result: Result((), result.usage, result.price),
        lambda result: Result((Text.of(b""),), result.usage, result.price),
        lambda result: Result((Json.dump(1),), result.usage, result.price),
    ],
    ids=["too dear", "not its rates", "huge usage", "unpriced unit", "nothing", "empty", "kind"],
)
async def test_what_fails_verification_is_not_paid(tmp_path: Path, change: object) -> None:
    honest = FakeProvider("two", tmp_path / "two", factor=2)
    async with toy(tmp_path, liar=Liar(tmp_path, change), two=honest) as market:
        result = await market.run(hello())
        assert len(market.providers["liar"].executions) == 1  # it was asked first
        assert [receipt.attempt.provider for receipt in result.receipts] == ["two"]
        events = [row.event() for row in await market.journal.rows(result.run_id)]
        closed = [event for event in events if isinstance(event, e.AttemptClosed)]
        assert [event.outcome for event in closed] == ["unpaid"]


async def test_an_answer_that_does_not_fit_its_schema_is_not_paid(tmp_path: Path) -> None:
    wrong = Liar(tmp_path, lambda result: Result((Json.dump(7),), result.usage, result.price))
    async with toy(tmp_path, liar=wrong) as market:
        with pytest.raises(RunPaused, match="schema"):
            await market.run(hello(output={"enum": ["yes", "no"]}))
        assert (await totals(market)).get("ever", 0) == 0


def test_bad_output_says_who(tmp_path: Path) -> None:
    assert str(BadOutput("it is empty", provider="one")) == "one: it is empty"


# -- limits --------------------------------------------------------------------------------------


async def test_a_budget_too_small_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        with pytest.raises(OverBudget) as raised:
            await market.plan(hello(), budget="0.000001")
        assert raised.value.limit == "budget"
        assert raised.value.exit_code == 3


@pytest.mark.parametrize("limit", ["per_run", "per_day", "total"])
async def test_limits_are_met_when_the_hold_is_taken(tmp_path: Path, limit: str) -> None:
    async with toy(tmp_path) as market:
        plan = await market.plan(hello())
    allowance = Allowance(**{limit: plan.at_most + plan.at_most - usdc("0.000001")})
    async with toy(tmp_path, allowance=allowance) as market:
        first = await runs.start(market.means, plan)
        if limit == "per_run":
            await first.result()
            return
        with pytest.raises(OverBudget) as raised:
            await runs.start(market.means, plan)
        assert raised.value.limit == limit
        await first.result()
        assert len(market.executions) == 1


async def test_a_task_dearer_than_its_offer_goes_to_no_one(tmp_path: Path) -> None:
    """The plan assumed short rows; the query then made long ones."""
    graph = JobGraph("grows")
    rows = graph.data("rows", source=table(tmp_path, 1))
    graph.local("long", _long_rows, rows)
    graph.infer("label", model="m", over=graph.ref("long"), prompt="{text}")
    async with toy(tmp_path) as market:
        with pytest.raises(RunPaused, match="above the offer's"):
            await market.run(graph)
        assert (await totals(market)).get("ever", 0) == 0
        assert market.executions == []


def _long_rows(rows: Dataset) -> Dataset:
    return Dataset.dump([{"text": "x" * 100_000}])


async def test_more_rows_than_max_items_fail_before_any_is_bought(tmp_path: Path) -> None:
    graph = JobGraph("many")
    rows = graph.data("rows", source=table(tmp_path, 5))
    both = graph.local("twice", _twice, rows)
    graph.infer("label", model="m", over=both, prompt="{text}", max_items=9)
    async with toy(tmp_path) as market:
        with pytest.raises(RunFailed, match="maps over 10 rows, and max_items is 9"):
            await market.run(graph)
        assert market.executions == []


def _twice(rows: Dataset) -> Dataset:
    return Dataset.dump(rows.rows() * 2)


async def test_funds_that_run_out_pause_the_run(tmp_path: Path) -> None:
    rail = ToyRail(purse=usdc("0.0005"))
    async with toy(tmp_path, rail=rail) as market:
        with pytest.raises(RunPaused, match="cannot be paid"):
            await market.run(mapped(tmp_path, 20))
        spent = (await totals(market))["ever"]
        assert 0 < spent <= 500


# -- stopping and resuming -----------------------------------------------------------------------


async def test_stop_leaves_a_run_that_goes_on_without_repeating(tmp_path: Path) -> None:
    slow = FakeProvider("one", tmp_path / "one", delay=0.05, lanes=2)
    async with toy(tmp_path, one=slow) as market:
        run = await runs.start(market.means, await market.plan(mapped(tmp_path, 12)))
        while len(market.executions) < 4:
            await asyncio.sleep(0.01)
        await run.stop()
        with pytest.raises(RunPaused, match="asked to stop"):
            await run.result()
        assert 4 <= len(market.executions) < 12
        result = await (await runs.resume(market.means, run.id)).result()
        assert len(market.executions) == 12 == len(set(market.executions))
        assert len(result.receipts) == 12


async def test_a_run_belongs_to_one_process(tmp_path: Path) -> None:
    slow = FakeProvider("one", tmp_path / "one", delay=0.3)
    async with toy(tmp_path, one=slow) as market:
        run = await runs.start(market.means, await market.plan(hello()))
        with pytest.raises(RunPaused, match="is working on it"):
            await runs.resume(market.means, run.id)
        await run.result()
        done = await runs.resume(market.means, run.id)
        assert (await done.result()).paid
        assert len(market.executions) == 1


async def test_cancel_ends_a_run_and_gives_the_hold_back(tmp_path: Path) -> None:
    gated = GatedProvider("one", tmp_path / "one", free=1, lanes=1)
    async with toy(tmp_path, one=gated) as market:
        run = await runs.start(market.means, await market.plan(mapped(tmp_path, 12)))
        await gated.reached.wait()
        await market.journal.commit(lambda tx: tx.append(e.WALLET, e.CancelAsked(run=run.id)))
        with pytest.raises(RunFailed):
            await run.result()
        assert (await totals(market))["held"] == 0
        assert (await history.read(market.journal, run.id)).outcome == "cancelled"


async def test_there_is_no_run_that_was_never_started(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        with pytest.raises(RunNotFound, match="r00000000"):
            await runs.resume(market.means, "r00000000")


async def test_events_can_be_read_late_and_slowly(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        run = await runs.start(market.means, await market.plan(mapped(tmp_path, 5)))
        await run.result()
        seen = [type(event).__name__ async for event in run.events()]
        assert seen[0] == "RunStarted"
        assert seen[-1] == "RunFinished"
        assert seen.count("ItemDone") == 5


async def test_an_expired_offer_is_asked_for_again(tmp_path: Path) -> None:
    provider = FakeProvider("one", tmp_path / "one", lasts=0.2)
    async with toy(tmp_path, one=provider) as market:
        plan = await market.plan(hello())
        await asyncio.sleep(0.3)
        result = await (await runs.start(market.means, plan)).result()
        assert result.paid


async def test_a_price_that_rose_is_not_paid(tmp_path: Path) -> None:
    provider = FakeProvider("one", tmp_path / "one", lasts=0.2)
    async with toy(tmp_path, one=provider) as market:
        plan = await market.plan(hello())
        dearer = FakeProvider("one", tmp_path / "one", factor=3)
        market.providers["one"] = dearer
        await asyncio.sleep(0.3)
        with pytest.raises(RunPaused, match="price has changed"):
            await (await runs.start(market.means, plan)).result()
        assert dearer.executions == []
