"""What the budget's books come to, figure for figure, and what each refusal says."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.toy_market import USDC, usdc

from agentkit.errors import NotAllowed, OverBudget
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.in_memory import MemoryJournal
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt
from agentkit.market.seams import Transaction
from agentkit.payments.budget import (
    Budget,
    Exposure,
    account_of,
    paid_before,
    shortfall,
    used_so_far,
)

T = TypeVar("T")


def attempt(number: int, at_most: str, run: str = "r1", **more: Any) -> Attempt:
    return Attempt(
        id=f"{number:064x}",
        purchase=f"{number:064x}",
        n=0,
        run=run,
        node="n",
        terms="t",
        at_most=usdc(at_most),
        task="t",
        **{"provider": "one", "rail": "toy", **more},
    )


class Books:
    """A budget over a journal in memory."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.budget = Budget(Allowance(**limits))
        self.journal = MemoryJournal(folder / "memory")

    async def do(self, work: Callable[[Transaction], T]) -> T:
        return await self.journal.commit(work)

    async def hold(self, amount: str, run: str = "r1", budget: str | None = None) -> None:
        limit = None if budget is None else usdc(budget)
        await self.do(lambda tx: self.budget.hold(tx, run, usdc(amount), limit))

    async def reserve(self, one: Attempt) -> None:
        await self.do(lambda tx: self.budget.reserve(tx, one))

    async def spend(self, one: Attempt, amount: str) -> None:
        await self.do(lambda tx: self.budget.spend(tx, one, usdc(amount), "paid"))

    async def left(self, run: str = "r1") -> str:
        left = await self.do(lambda tx: self.budget.left(tx, run))
        return "none" if left is None else left.number

    async def events(self) -> list[str]:
        return [event.stored_name for event in await self.journal.history(e.WALLET)]


def refusal(error: pytest.ExceptionInfo[OverBudget]) -> tuple[str, str, str, str]:
    over = error.value
    return over.limit, str(over.needed), str(over.allowed), str(over.already)


# -- holds ---------------------------------------------------------------------------------------


async def test_what_a_run_holds_and_has_spent_counts_against_its_budget(tmp_path: Path) -> None:
    books, one = Books(tmp_path), attempt(1, "0.3")
    await books.hold("0.4", budget="1")
    await books.reserve(one)
    await books.spend(one, "0.2")
    await books.hold("0.3", budget="1")  # 0.2 left + 0.2 spent + 0.3
    await books.hold("9", run="r2", budget="10")  # another run's budget is its own
    with pytest.raises(OverBudget) as over:
        await books.hold("0.31", budget="1")
    assert refusal(over) == ("budget", "1.01 USDC", "1.00 USDC", "0.70 USDC")
    await books.hold("0.3", budget="1")
    with pytest.raises(OverBudget):
        await books.hold("0.000001", budget="1")
    await books.hold("0", budget="0.000001")  # nothing is held for nothing
    assert await books.left() == "0.80"


@pytest.mark.parametrize("limit", ["per_run", "per_day", "total"])
async def test_each_limit_is_named_with_what_was_used_before(tmp_path: Path, limit: str) -> None:
    books = Books(tmp_path, **{limit: usdc("1")})
    await books.hold("0.6")
    with pytest.raises(OverBudget) as over:
        await books.hold("0.5")
    assert refusal(over) == (limit, "1.10 USDC", "1.00 USDC", "0.60 USDC")
    await books.hold("0.4")
    assert await books.left() == "1.00"


async def test_a_hold_is_reduced_to_what_is_needed_and_reserved(tmp_path: Path) -> None:
    books = Books(tmp_path)
    await books.do(lambda tx: books.budget.reduce(tx, "r1", 5))  # there is none
    await books.hold("1")
    await books.reserve(attempt(1, "0.3"))
    await books.do(lambda tx: books.budget.reduce(tx, "r1", 500_000))
    assert await books.left() == "0.20"  # 0.5 needed, of which 0.3 is reserved
    await books.do(lambda tx: books.budget.reduce(tx, "r1", 499_999))
    assert await books.left() == "0.199999"
    await books.do(lambda tx: books.budget.reduce(tx, "r1", 0))
    assert await books.left() == "0.00"  # what is reserved stays
    before = await books.events()
    await books.do(lambda tx: books.budget.reduce(tx, "r1", 300_000))
    assert await books.events() == before  # nothing to give back, nothing to record
    assert before.count("HoldReduced") == 3


async def test_a_released_hold_is_none_and_only_that_of_its_run(tmp_path: Path) -> None:
    books = Books(tmp_path)
    await books.hold("1")
    await books.hold("2", run="r2")
    await books.do(lambda tx: books.budget.release(tx, "r1"))
    await books.do(lambda tx: books.budget.release(tx, "r3"))  # it has none
    assert [await books.left(run) for run in ("r1", "r2", "r3")] == ["none", "2.00", "none"]
    assert (await books.events()).count("HoldReleased") == 1


# -- reservations --------------------------------------------------------------------------------


async def test_an_attempt_is_reserved_once_while_it_is_open_or_paid(tmp_path: Path) -> None:
    books, one = Books(tmp_path), attempt(1, "0.4")

    async def is_reserved() -> bool:
        return await books.do(lambda tx: books.budget.is_reserved(tx, one))

    await books.hold("1")
    assert not await is_reserved()
    await books.reserve(one)
    assert await is_reserved()
    await books.reserve(one)
    assert await books.left() == "0.60"
    assert await books.do(lambda tx: paid_before(tx, one.id)) is None
    await books.spend(one, "0.1")
    assert not await is_reserved()
    await books.reserve(one)  # a restored run asks again for what its wallet remembers
    assert await books.left() == "0.90"
    assert await books.do(lambda tx: paid_before(tx, one.id)) == usdc("0.1")
    assert await books.do(lambda tx: paid_before(tx, "f" * 64)) is None
    assert (await books.events()).count("Reserved") == 1


async def test_more_than_a_hold_has_left_is_refused(tmp_path: Path) -> None:
    books = Books(tmp_path)
    with pytest.raises(OverBudget) as over:
        await books.reserve(attempt(1, "0.1"))
    assert refusal(over)[:3] == ("hold", "0.10 USDC", "0.00 USDC")  # without a hold
    await books.hold("1")
    await books.reserve(attempt(1, "0.7"))
    with pytest.raises(OverBudget) as over:
        await books.reserve(attempt(2, "0.4"))
    assert refusal(over)[:3] == ("hold", "0.40 USDC", "0.30 USDC")
    await books.reserve(attempt(3, "0.3"))


async def test_what_costs_nothing_needs_no_hold_beforehand(tmp_path: Path) -> None:
    books = Books(tmp_path)
    await books.reserve(attempt(1, "0", run="free"))
    assert await books.events() == ["Held", "Reserved"]
    assert await books.left("free") == "0.00"
    await books.hold("1")
    await books.reserve(attempt(2, "0"))
    assert await books.events() == ["Held", "Reserved", "Held", "Reserved"]


async def test_a_task_may_cost_as_much_as_its_limit_and_no_more(tmp_path: Path) -> None:
    books = Books(tmp_path, per_task=usdc("0.5"))
    await books.hold("9")
    await books.reserve(attempt(1, "0.5"))
    with pytest.raises(OverBudget) as over:
        await books.reserve(attempt(2, "0.500001"))
    assert refusal(over)[:3] == ("per_task", "0.500001 USDC", "0.50 USDC")


async def test_a_provider_that_is_not_listed_is_told_how_to_be(tmp_path: Path) -> None:
    books = Books(tmp_path, providers=("native",))
    await books.hold("1")
    with pytest.raises(NotAllowed) as refused:
        await books.reserve(attempt(1, "0.1", provider="other"))
    assert refused.value.hint == "add it to allowance.providers"


async def test_reservations_of_nobody_count_against_every_provider(tmp_path: Path) -> None:
    """Events of an early version name no provider."""
    books = Books(tmp_path, per_provider=usdc("0.5"))
    await books.hold("9")
    early = e.Reserved(
        attempt="e" * 64, run="r1", rail="toy", account="x", amount=usdc("0.2"), provider=""
    )
    await books.do(lambda tx: tx.append(e.WALLET, early))
    with pytest.raises(OverBudget) as over:
        await books.reserve(attempt(1, "0.31"))
    assert refusal(over)[:3] == ("per_provider", "0.51 USDC", "0.50 USDC")
    await books.reserve(attempt(1, "0.3"))


async def test_the_pace_counts_whole_minutes_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000.0 + 59
    monkeypatch.setattr(time, "time", lambda: now)
    books = Books(tmp_path, per_minute=1)
    await books.hold("1")
    await books.reserve(attempt(1, "0.1"))
    with pytest.raises(NotAllowed, match="1 tasks were bought in this minute"):
        await books.reserve(attempt(2, "0.1"))
    now += 1.5  # the next minute began half a second ago
    await books.reserve(attempt(3, "0.1"))


# -- sums over time ------------------------------------------------------------------------------


async def test_what_a_run_holds_is_left_out_of_what_its_new_plan_finds_used(tmp_path: Path) -> None:
    books, one = Books(tmp_path), attempt(1, "0.3")
    await books.hold("1")
    await books.hold("2", run="r2")
    await books.reserve(one)
    await books.spend(one, "0.25")

    async def used(run: str = "") -> tuple[str, str]:
        sums = await books.do(lambda tx: used_so_far(tx, usdc("0"), run))
        assert set(sums) == {"per_day", "total"}
        assert {amount.asset for amount in sums.values()} == {USDC}
        return sums["per_day"].number, sums["total"].number

    assert await used() == ("3.00", "3.00")  # 0.75 and 2 held, 0.25 spent
    assert await used("r1") == ("2.25", "2.25")
    assert await used("r2") == ("1.00", "1.00")
    assert await used("nonesuch") == ("3.00", "3.00")


# -- what lies with a payee ----------------------------------------------------------------------


async def test_what_was_spent_lies_with_the_payee_no_longer(tmp_path: Path) -> None:
    books, one = Books(tmp_path), attempt(1, "0.3", payee="0xP", rail="prepaid")
    exposure = Exposure(usdc("1"))
    funded = e.CreditFunded(account="0xP", amount=usdc("0.9"), transaction="t")
    await books.do(lambda tx: tx.append(e.WALLET, funded))
    await books.hold("1")
    await books.reserve(one)
    await books.spend(one, "0.2")

    async def room(units: int, least: int) -> int:
        return await books.do(lambda tx: exposure.within(tx, "0xP", units, least))

    assert await room(900_000, 300_000) == 300_000
    with pytest.raises(OverBudget) as over:
        await room(900_000, 300_001)
    assert refusal(over)[:3] == ("exposure", "1.000001 USDC", "1.00 USDC")
    more = e.CreditFunded(account="0xP", amount=usdc("5"), transaction="u")
    await books.do(lambda tx: tx.append(e.WALLET, more))
    assert await room(900_000, 0) == 0


async def test_the_account_of_an_attempt_is_its_payee_or_its_provider() -> None:
    assert account_of(attempt(1, "1", payee="0xP")) == "0xP"
    assert account_of(attempt(1, "1")) == "one"


async def test_a_shortfall_is_what_is_missing_within_the_hold(tmp_path: Path) -> None:
    books = Books(tmp_path)
    one = attempt(1, "0.3", payee="0xP", rail="prepaid")

    async def missing(need: str, limit: str = "9") -> int:
        return await books.do(
            lambda tx: shortfall(
                tx, Exposure(usdc(limit)), rail="prepaid", payee="0xP", need=usdc(need), attempt=one
            )
        )

    assert await missing("1") == 0  # without a hold nothing may be put anywhere
    await books.hold("0.8")
    assert await missing("0.5") == 500_000
    assert await missing("1") == 800_000  # never more than the hold
    funded = e.CreditFunded(account="0xP", amount=usdc("0.2"), transaction="t")
    await books.do(lambda tx: tx.append(e.WALLET, funded))
    assert await missing("0.5") == 300_000
    assert await missing("0.2") == 0
    assert await missing("0.200001") == 1
    assert await missing("0.1") == -100_000
    await books.reserve(attempt(2, "0.5", payee="0xQ"))
    assert await missing("1") == 100_000  # 0.3 of the hold is free, and 0.2 lies there already
    assert await missing("1", limit="0.3") == 100_000
    with pytest.raises(
        OverBudget
    ):  # the attempt itself lacks 0.1, and only 0.05 more may lie there
        await missing("1", limit="0.25")
    accounts = await books.do(lambda tx: tx.every(r.Account, "prepaid|"))
    assert [account.funded for account in accounts] == [usdc("0.2")]
