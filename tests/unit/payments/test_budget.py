"""The allowance under races: between tasks of one process, and between processes."""

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toy_market import WALLET, usdc

from agentkit.errors import NotAllowed, OverBudget
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt
from agentkit.market.seams import Transaction
from agentkit.payments.budget import Budget, Exposure


def attempt(number: int, at_most: str, provider: str = "one", run: str = "r1") -> Attempt:
    return Attempt(
        id=f"{number:064x}",
        purchase=f"{number:064x}",
        n=0,
        run=run,
        node="n",
        provider=provider,
        rail="toy",
        terms="t",
        at_most=usdc(at_most),
        task="t",
    )


async def test_one_of_two_gets_the_last_unit(tmp_path: Path) -> None:
    journals = [await Journal.open(tmp_path, WALLET) for _ in range(2)]
    budget = Budget(Allowance(per_day=usdc("0.000001")))

    def hold(run: str) -> object:
        return lambda tx: budget.hold(tx, run, usdc("0.000001"), None)

    outcomes = await asyncio.gather(
        *(j.commit(hold(f"r{n}")) for n, j in enumerate(journals)),  # type: ignore[arg-type]
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "OverBudget"]
    for journal in journals:
        await journal.close()


async def test_an_attempt_is_paid_once_and_never_above_its_at_most(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, WALLET)
    budget, one = Budget(Allowance()), attempt(1, "0.5")

    def reserve(tx: Transaction) -> None:
        budget.hold(tx, "r1", usdc("1"), None)
        budget.reserve(tx, one)

    await journal.commit(reserve)
    with pytest.raises(NotAllowed, match="more than the attempt's at most"):
        await journal.commit(lambda tx: budget.spend(tx, one, usdc("0.6"), "paid"))
    await journal.commit(lambda tx: budget.spend(tx, one, usdc("0.4"), "paid"))
    for amount in ("0.4", "0.3"):  # known already: nothing more is counted, and nothing given back
        await journal.commit(lambda tx, a=amount: budget.spend(tx, one, usdc(a), "paid"))
    await journal.commit(lambda tx: budget.unreserve(tx, one))
    await journal.commit(lambda tx: budget.reserve(tx, one))
    total = await journal.commit(lambda tx: tx.every(r.Total, "ever"))
    assert [row.amount for row in total] == [usdc("0.4")]
    await journal.close()


@pytest.mark.parametrize(("rail", "unsure"), [("prepaid", 400_000), ("batch-settlement", 0)])
async def test_what_a_prepaid_provider_says_it_billed_may_still_be_there(
    tmp_path: Path, rail: str, unsure: int
) -> None:
    """A transfer that was lost would else seem to have arrived once its balance is read."""
    journal = await Journal.open(tmp_path, WALLET)
    budget, one = Budget(Allowance()), attempt(1, "0.5").model_copy(update={"rail": rail})

    def spend(tx: Transaction) -> None:
        budget.hold(tx, "r1", usdc("1"), None)
        budget.reserve(tx, one)
        budget.spend(tx, one, usdc("0.4"), "charged, not received")

    await journal.commit(spend)
    (account,) = await journal.commit(lambda tx: tx.every(r.Account))
    assert (account.spent, account.uncertain) == (usdc("0.4"), unsure)
    await journal.close()


async def test_only_listed_providers_are_paid(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, WALLET)
    budget = Budget(Allowance(providers=("native", "gaia*")))
    await journal.commit(lambda tx: budget.hold(tx, "r1", usdc("1"), None))
    await journal.commit(lambda tx: budget.reserve(tx, attempt(1, "0.1", "gaia-2")))
    with pytest.raises(NotAllowed, match="'unknown'"):
        await journal.commit(lambda tx: budget.reserve(tx, attempt(2, "0.1", "unknown")))
    await journal.close()


async def test_only_listed_addresses_are_paid(tmp_path: Path) -> None:
    """Whatever a provider or its text says: an address that is not listed gets nothing."""
    journal = await Journal.open(tmp_path, WALLET)
    good, bad = "0x" + "aB" * 20, "0x" + "Ee" * 20
    budget = Budget(Allowance(payees=(good.lower(),)))
    await journal.commit(lambda tx: budget.hold(tx, "r1", usdc("1"), None))
    paid, injected = (
        attempt(n, "0.1").model_copy(update={"payee": payee}) for n, payee in enumerate((good, bad))
    )
    await journal.commit(lambda tx: budget.reserve(tx, paid))
    with pytest.raises(NotAllowed, match="does not list payee 0xEeEe") as refused:
        await journal.commit(lambda tx: budget.reserve(tx, injected))
    assert refused.value.hint == "add it to allowance.payees"
    await journal.close()


async def test_a_provider_gets_no_more_than_its_share_in_the_end(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, WALLET)
    budget = Budget(Allowance(per_provider=usdc("0.5")))
    one, two, three, other = (
        attempt(1, "0.3"),
        attempt(2, "0.2"),
        attempt(3, "0.1"),
        attempt(4, "0.4", "other"),
    )
    await journal.commit(lambda tx: budget.hold(tx, "r1", usdc("2"), None))
    for open_ in (one, two, other):
        await journal.commit(lambda tx, a=open_: budget.reserve(tx, a))
    with pytest.raises(OverBudget) as over:
        await journal.commit(lambda tx: budget.reserve(tx, three))
    assert (over.value.limit, str(over.value.needed)) == ("per_provider", "0.60 USDC")
    await journal.commit(lambda tx: budget.spend(tx, one, usdc("0.2"), "paid"))
    await journal.commit(lambda tx: budget.reserve(tx, three))  # what is not spent is free again
    await journal.commit(lambda tx: budget.unreserve(tx, two))
    with pytest.raises(OverBudget):
        await journal.commit(lambda tx: budget.reserve(tx, attempt(5, "0.21")))
    await journal.commit(lambda tx: budget.reserve(tx, attempt(6, "0.2")))
    await journal.close()


async def test_no_more_tasks_a_minute_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand small payments are what limits on amounts do not stop."""
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    journal = await Journal.open(tmp_path, WALLET)
    budget = Budget(Allowance(per_minute=3))
    await journal.commit(lambda tx: budget.hold(tx, "r1", usdc("1"), None))

    async def bought(first: int) -> int:
        for number in range(first, first + 10):
            try:
                await journal.commit(lambda tx, n=number: budget.reserve(tx, attempt(n, "0.001")))
            except NotAllowed as refused:
                assert refused.hint == "raise allowance.per_minute, or resume later"
                return number - first
        return 10

    assert await bought(0) == 3
    now += 30
    assert await bought(20) == 0
    now += 30
    assert await bought(40) == 3
    await journal.close()


async def test_what_lies_with_one_payee_is_bounded_over_all_rails(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, WALLET)
    exposure = Exposure(usdc("1"))
    funded = [
        e.CreditFunded(account="0xP", amount=usdc("0.7"), transaction="t"),
        e.CreditFunded(account="0xQ", amount=usdc("0.9"), transaction="u"),
    ]
    for event in funded:
        await journal.commit(lambda tx, event=event: tx.append(e.WALLET, event))

    async def room(units: int, least: int) -> int:
        return await journal.commit(lambda tx: exposure.within(tx, "0xP", units, least))

    assert await room(200_000, 0) == 200_000
    assert await room(500_000, 300_000) == 300_000
    with pytest.raises(OverBudget) as over:
        await room(500_000, 300_001)
    assert over.value.limit == "exposure"
    assert await journal.commit(lambda tx: Exposure().within(tx, "0xP", 10**12, 1)) == 10**12
    await journal.close()


async def test_what_is_being_locked_lies_with_its_payee_already(tmp_path: Path) -> None:
    """Another process has signed the opening, and the chain has not said so yet."""
    journal = await Journal.open(tmp_path, WALLET)
    exposure = Exposure(usdc("1"))
    quoted = e.EscrowQuoted(
        attempt="a",
        id="j",
        provider="p",
        provider_node="",
        payee="0xP",
        price=usdc("0.7"),
        job={},
    )
    await journal.commit(lambda tx: tx.append(e.WALLET, quoted))

    async def room() -> int:
        return await journal.commit(lambda tx: exposure.within(tx, "0xP", 500_000, 0))

    assert await room() == 500_000
    signed = e.TxSigned(
        intent="escrow:a:j", call="c", nonce=0, transaction="0x1", raw="", cost=usdc("0")
    )
    await journal.commit(lambda tx: tx.append(e.WALLET, signed))
    assert await room() == 300_000
    await journal.commit(
        lambda tx: tx.append(e.WALLET, e.EscrowOpened(attempt="a", amount=usdc("0.7")))
    )
    assert await room() == 300_000, "counted once"
    await journal.close()


async def test_a_thousand_payments_of_a_cent_stop_at_the_limit_of_the_day(tmp_path: Path) -> None:
    """Each is small enough; their sum is not."""
    journal = await Journal.open(tmp_path, WALLET)
    budget = Budget(Allowance(per_task=usdc("0.01"), per_day=usdc("5")))
    paid, refused = 0, set()

    async def pay(n: int) -> None:
        nonlocal paid
        one = attempt(n, "0.01", run=f"run-{n}")

        def work(tx: Transaction) -> None:
            budget.hold(tx, one.run, one.at_most, None)
            budget.reserve(tx, one)
            budget.spend(tx, one, one.at_most, "paid")
            budget.release(tx, one.run)

        try:
            await journal.commit(work)
            paid += 1
        except OverBudget as over:
            refused.add(over.limit)

    await asyncio.gather(*map(pay, range(1000)))
    assert (paid, refused) == (500, {"per_day"})
    await journal.close()


steps = st.lists(
    st.tuples(
        st.sampled_from(["hold", "reserve", "spend", "lose", "unreserve", "release"]),
        st.integers(0, 3),
        st.integers(0, 400),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_no_order_of_events_exceeds_any_limit(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Held plus spent stays within the total, spent within what was held, whatever happens."""
    asyncio.run(_walk(tmp_path_factory.mktemp("budget"), steps))


async def _walk(home: Path, steps: list[tuple[str, int, int]]) -> None:
    journal = await Journal.open(home, WALLET)
    limit = usdc("0.001")
    budget = Budget(Allowance(total=limit))
    open_: dict[int, Attempt] = {}
    spent = 0
    for number, (what, who, units) in enumerate(steps):
        money = type(limit)(units, limit.asset)
        run = f"r{who}"

        def work(tx: Transaction) -> None:
            nonlocal spent
            if what == "hold":
                budget.hold(tx, run, money, None)
            elif what == "reserve":
                new = attempt(number, "0", run=run).model_copy(update={"at_most": money})
                budget.reserve(tx, new)
                open_[number] = new
            elif what in ("spend", "lose") and open_:
                _, one = open_.popitem()
                paid = type(limit)(min(units, one.at_most.units), limit.asset)
                spent += paid.units
                budget.spend(tx, one, paid, "paid" if what == "spend" else "uncertain")
            elif what == "unreserve" and open_:
                budget.unreserve(tx, open_.popitem()[1])
            elif what == "release":  # what may be drawn after the run's end stays in the hold
                budget.release(tx, run)

        try:
            await journal.commit(work)
        except OverBudget:
            open_.pop(number, None)
        rows = await journal.commit(lambda tx: tx.every(r.Total))
        totals = {row.scope: row.amount.units for row in rows}
        assert totals.get("ever", 0) == spent
        assert totals.get("ever", 0) + totals.get("held", 0) <= limit.units
        holds = await journal.commit(lambda tx: tx.every(r.Hold))
        assert all(hold.reserved <= hold.left for hold in holds)
        assert sum(hold.left.units for hold in holds) == totals.get("held", 0)
    await journal.check()
    await journal.close()
