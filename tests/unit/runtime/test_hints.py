"""The hint of a pause says what to do first, and names commands that can help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.toy_market import Toy, toy, usdc

from agentkit.errors import (
    InsufficientFunds,
    OverBudget,
    ProviderError,
    RunPaused,
    StateForked,
    Unavailable,
)
from agentkit.graph.builder import JobGraph
from agentkit.market.attempt import Attempt, Payment
from agentkit.market.seams import Transaction
from agentkit.market.task import Task
from agentkit.runtime import hints, history
from agentkit.runtime import run as runs
from agentkit.runtime.stop import pause_of
from agentkit.testing.fakes import FakeProvider, ToyRail


def asking(**more: object) -> JobGraph:
    graph = JobGraph("asking")
    graph.infer("ask", model="m", prompt="hello", retries=0, **more)
    return graph


async def paused(market: Toy, **wish: object) -> RunPaused:
    plan = await market.plan(asking(), **wish)  # type: ignore[arg-type]
    run = await runs.start(market.means, plan)
    with pytest.raises(RunPaused) as raised:
        await run.result()
    later = await history.read(market.journal, run.id)
    assert pause_of(later).hint == raised.value.hint  # also for who looks tomorrow
    return raised.value


def failing(error: Callable[[], ProviderError]) -> Callable[[Task, Attempt], ProviderError]:
    return lambda task, attempt: error()


async def test_when_no_offer_is_left_waiting_or_planning_helps(tmp_path: Path) -> None:
    async with toy(tmp_path) as market:
        for provider in market.providers.values():
            provider.before = failing(lambda: Unavailable("down"))
        why = await paused(market)
    run = why.run_id
    assert why.hint.startswith(f"wait and go on with `agentkit resume {run}`; or plan what is left")
    assert f"`agentkit plan GRAPH --rest {run} --out plan.json`" in why.hint
    assert f"`agentkit resume {run} --plan plan.json`" in why.hint


async def test_after_a_deadline_what_is_left_is_planned(tmp_path: Path) -> None:
    """It named a plan.json that nobody had made."""
    slow = FakeProvider("slow", tmp_path / "slow", delay=5.0)
    async with toy(tmp_path, slow=slow) as market:
        plan = await market.plan(asking(), deadline=30)
        run = await runs.start(market.means, plan.model_copy(update={"deadline": 0.3}))
        with pytest.raises(RunPaused, match="deadline has passed") as raised:
            await run.result()
    assert raised.value.hint.startswith(
        f"plan what is left with `agentkit plan GRAPH --rest {run.id}"
    )


async def test_an_uncertain_purchase_is_looked_at_before_it_is_bought_again(tmp_path: Path) -> None:
    blind = FakeProvider("blind", tmp_path / "b", finds=False, pays="with_request")
    blind.after = failing(lambda: Unavailable("reset", unknown=True))
    async with toy(tmp_path, blind=blind) as market:
        why = await paused(market)
    assert why.hint.startswith("look at blind whether it was done and billed; then buy it again")
    assert f"`agentkit resume {why.run_id} --rebuy`" in why.hint


class Empty(ToyRail):
    """A rail whose wallet has no money."""

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        raise InsufficientFunds


async def test_without_money_the_hint_says_where_to_send_it(tmp_path: Path) -> None:
    async with toy(tmp_path, rail=Empty()) as market:
        why = await paused(market)
    assert "send funds to the address that `agentkit wallet show` prints" in why.hint
    assert why.hint.endswith(f"then go on with `agentkit resume {why.run_id}`")


def test_a_budget_is_raised_by_the_command_that_can() -> None:
    over = OverBudget("budget", usdc("0.5"), usdc("0.1"))
    assert hints.after(over, "r1") == 'allow more with `agentkit resume r1 --budget "0.50 USDC"`'


def test_the_commands_of_a_fork_are_safe_to_paste(tmp_path: Path) -> None:
    forked = StateForked("two", ours=("here", "ab" * 32), home=tmp_path / "it's; rm -rf x")
    assert "'\"'\"'" in forked.hint
    assert "/forked-abababab'" in forked.hint
