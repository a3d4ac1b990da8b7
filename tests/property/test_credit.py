"""Prepaid credit: whatever happens in whatever order, each unit stands in one book at any moment.

Beside the books is a provider as it is: it debits and credits when it likes, and shows whole cents.
"""

from __future__ import annotations

from typing import ClassVar

from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.state_machines import go_every_way

from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.fold import fold
from agentkit.journal.integrity import MemoryRecords
from agentkit.journal.subjects.budget import account
from agentkit.market.seams import Event
from agentkit.money import Money
from agentkit.payments.credit import in_transit, is_shown, least_top_up, whole_cents
from agentkit.testing.fakes import USDC

CENT, OWNED = 10_000, 10**7
FAR = "0xfar"
COIN = USDC.zero()


class Books(RuleBasedStateMachine):
    """Our events beside what is really in the wallet and in the account."""

    done: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.rows = MemoryRecords()
        self.wallet = OWNED
        self.left = 0  # the account as it is, to the unit
        self.credited = 0  # of our transfers
        self.by_card = 0
        self.sent = self.bought = 0
        self.landed: dict[int, int] = {}  # numbers that moved money, to what is still to credit
        self.open: dict[str, tuple[int, bool]] = {}  # attempts: at most, whether debited
        self._put(e.Held(run="r", amount=Money(OWNED, USDC)))

    def _put(self, event: Event) -> None:
        fold(event, e.WALLET, 1.0, self.rows)

    @property
    def account(self) -> r.Account:
        return account(self.rows, rail="prepaid", payee=FAR, like=USDC.zero())

    @property
    def transit(self) -> list[r.CreditTransfer]:
        return in_transit(self.rows, FAR)  # type: ignore[arg-type]

    # -- the wallet ------------------------------------------------------------------------------

    @rule()
    def read(self) -> None:
        """Read the balance, and book what it proves, as the rail does."""
        cents, spent = self.left // CENT, self.account.spent.units
        for transfer in self.transit:
            if is_shown(transfer, self.account, cents, CENT):
                self._put(
                    e.CreditFunded(
                        account=FAR, amount=transfer.amount, transaction=transfer.transaction
                    )
                )
                self.done.add("shown")
                if self.account.reserved:
                    self.done.add("shown beside open attempts")
        self._put(e.CreditRead(account=FAR, cents=cents, spent=spent))

    @precondition(lambda self: not self.transit)
    @rule(missing=st.integers(1, 3 * CENT))
    def sign(self, missing: int) -> None:
        self.read()
        units = max(least_top_up(self.account, CENT), whole_cents(missing, CENT))
        intent = f"topup:{FAR}:{self.sent}:0:{units}"
        amount = Money(units, USDC)
        self._put(e.CreditSent(account=FAR, number=self.sent, amount=amount, intent=intent))
        signed = e.TxSigned(
            intent=intent, call="", nonce=self.sent, transaction="", raw="", cost=COIN
        )
        self._put(signed)
        self.sent += 1

    @precondition(lambda self: any(row.standing == "signed" for row in self.transit))
    @rule(moves=st.sampled_from([True, True, False]))
    def mine(self, moves: bool) -> None:
        (transfer,) = self.transit
        final = e.TxFinal(
            intent=transfer.intent,
            transaction=f"t{transfer.number}",
            block=1,
            succeeded=moves,
            cost=COIN,
        )
        if moves:
            self._move(transfer.number, transfer.amount.units)
        self._put(final)
        self.done.add("mined" if moves else "reverted")

    @precondition(lambda self: self.sent and self._last.standing == "failed")
    @rule()
    def somebody_brings_it(self) -> None:
        self._move(self._last.number, self._last.amount.units)
        landed = e.CreditLanded(
            account=FAR, number=self._last.number, amount=self._last.amount, transaction="by other"
        )
        self._put(landed)
        self.done.add("brought by somebody")

    @property
    def _last(self) -> r.CreditTransfer:
        row = self.rows.get(r.CreditTransfer, f"{FAR}|{self.sent - 1}")
        assert row is not None
        return row

    def _move(self, number: int, units: int) -> None:
        self.wallet -= units
        self.landed[number] = units

    @rule(units=st.sampled_from([1, 11, 48, CENT - 1, CENT, 2 * CENT + 11]))
    def open_attempt(self, units: int) -> None:
        if units > self.account.free:
            return
        name = f"a{self.bought}"
        self.bought += 1
        reserved = e.Reserved(
            attempt=name,
            run="r",
            rail="prepaid",
            account=FAR,
            amount=Money(units, USDC),
            provider="far",
        )
        self._put(reserved)
        self.open[name] = (units, False)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), standing=st.sampled_from(["paid", "paid", "uncertain", "unpaid"]))
    def end_attempt(self, data: st.DataObject, standing: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        units, debited = self.open.pop(name)
        if standing == "unpaid" and not debited:
            self._put(e.Unreserved(attempt=name))
            return
        if standing != "uncertain" and not debited:
            self.left -= units
        end = "uncertain" if standing == "uncertain" else "paid"
        spent = e.Spent(attempt=name, provider="far", amount=Money(units, USDC), standing=end)
        self._put(spent)
        self.done.add(end)

    # -- the provider ----------------------------------------------------------------------------

    @precondition(lambda self: any(self.landed.values()))
    @rule()
    def credit(self) -> None:
        for number, units in self.landed.items():
            self.left += units
            self.credited += units
            self.landed[number] = 0

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def debit(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        units, debited = self.open[name]
        if not debited:
            self.left -= units
            self.open[name] = (units, True)

    # -- what holds ------------------------------------------------------------------------------

    @invariant()
    def no_unit_is_in_no_book_or_in_two(self) -> None:
        moving = sum(row.amount.units for row in self.transit if row.standing == "in transit")
        books = self.account
        credit_left = books.funded.units - books.spent.units
        assert self.wallet + moving + credit_left + books.spent.units == OWNED

    @invariant()
    def no_credit_is_believed_that_is_not_there(self) -> None:
        assert self.account.funded.units <= self.credited

    @invariant()
    def what_was_credited_is_shown_once_nothing_is_open(self) -> None:
        """Unless uncertain attempts, which may have been debited or not, stand between."""
        if any(self.landed.values()) or self.open or self.account.uncertain:
            return
        moving = [row for row in self.transit if row.standing == "in transit"]
        cents = self.left // CENT
        assert all(is_shown(row, self.account, cents, CENT) for row in moving)


WAYS = {
    *("mined", "reverted", "brought by somebody", "paid", "uncertain"),
    *("shown", "shown beside open attempts"),
}


def test_each_unit_stands_in_one_book() -> None:
    go_every_way(Books, WAYS)


def test_each_unit_stands_in_one_book_in_many_more_orders() -> None:
    """Debits that hide an arrival, or look like one, take several steps to come about."""
    often = settings(max_examples=250, stateful_step_count=50, deadline=None)
    run_state_machine_as_test(seed(7)(Books), settings=often)
