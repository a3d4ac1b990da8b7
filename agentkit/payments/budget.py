"""The budget: limits per task, run, day and ever, kept in the state file for all processes.

Every check and the event that depends on it are one transaction, so of several processes that race
for the last unit exactly one gets it.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.errors import NotAllowed, OverBudget
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.subjects.budget import day_of
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt
from agentkit.market.offer import Offer
from agentkit.market.receipt import RECEIVED, Standing
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments.credit import in_transit
from agentkit.payments.intents import opening_intent


class Budget:
    """The wallet's ledger under one allowance; see `market.seams.Ledger`."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance

    def hold(self, tx: Transaction, run: str, amount: Money, budget: Money | None) -> None:
        """Set `amount` more aside for a run; raises OverBudget with the limit that it exceeds."""
        if not amount:
            return
        self.check_hold(tx, run, amount, budget)
        tx.append(e.WALLET, e.Held(run=run, amount=amount))

    def check_hold(self, tx: Transaction, run: str, amount: Money, budget: Money | None) -> None:
        """Raise OverBudget, with the limit, when `amount` more may not be set aside for a run."""
        hold = tx.get(r.Hold, run)
        used_by_run = amount.asset.zero() if hold is None else hold.left + hold.spent
        used = used_so_far(tx, amount)
        for name, limit, already in (
            ("budget", budget, used_by_run),
            ("per_run", self.allowance.per_run, used_by_run),
            ("per_day", self.allowance.per_day, used["per_day"]),
            ("total", self.allowance.total, used["total"]),
        ):
            if limit is not None and already + amount > limit:
                raise OverBudget(name, already + amount, limit, already=already)

    def reserve(self, tx: Transaction, attempt: Attempt) -> None:
        """Take an attempt's at most out of its run's hold, once.

        Raises NotAllowed (provider, payee or pace) and OverBudget with the limit that it exceeds.
        """
        self._check_attempt(attempt)
        earlier = tx.get(r.Reservation, attempt.id)
        if earlier and earlier.standing in ("open", *RECEIVED):
            return  # a restored run asks again for what its wallet remembers
        self._check_provider(tx, attempt)
        self._check_pace(tx)

        left = self.left(tx, attempt.run)
        if left is None and not attempt.at_most:  # a plan that costs nothing opened no hold
            tx.append(e.WALLET, e.Held(run=attempt.run, amount=attempt.at_most))
            left = attempt.at_most
        if left is None or attempt.at_most > left:
            raise OverBudget("hold", attempt.at_most, left or attempt.at_most.asset.zero())
        reserved = e.Reserved(
            attempt=attempt.id,
            run=attempt.run,
            rail=attempt.rail,
            account=account_of(attempt),
            amount=attempt.at_most,
            provider=attempt.provider,
        )
        tx.append(e.WALLET, reserved)

    def is_reserved(self, tx: Transaction, attempt: Attempt) -> bool:
        """Return whether an attempt's at most is set aside and not spent yet."""
        reservation = tx.get(r.Reservation, attempt.id)
        return reservation is not None and reservation.standing == "open"

    def _check_attempt(self, attempt: Attempt) -> None:
        """Check what needs no books: who is paid, and how much one task may cost."""
        if not self.allowance.permits(attempt.provider):
            raise NotAllowed(
                f"the allowance does not list provider {attempt.provider!r}",
                hint="add it to allowance.providers",
            )
        if not self.allowance.permits_payee(attempt.payee):
            raise NotAllowed(
                f"the allowance does not list payee {attempt.payee}",
                hint="add it to allowance.payees",
            )
        limit = self.allowance.per_task
        if limit is not None and attempt.at_most > limit:
            raise OverBudget("per_task", attempt.at_most, limit)

    def _check_provider(self, tx: Transaction, attempt: Attempt) -> None:
        """Raise OverBudget when an attempt would exceed the limit for its provider."""
        limit = self.allowance.per_provider
        if limit is None:
            return
        spent = _total(tx, f"provider:{attempt.provider}", limit)
        reserved = _total(tx, f"open:{attempt.provider}", limit)
        # Reservations of an early version name no provider, so they count against every provider.
        unnamed = _total(tx, "open:", limit)
        needed = spent + reserved + unnamed + attempt.at_most
        if needed > limit:
            raise OverBudget("per_provider", needed, limit)

    def _check_pace(self, tx: Transaction) -> None:
        """Raise NotAllowed when enough tasks were bought in this minute of the clock."""
        limit = self.allowance.per_minute
        if limit is None:
            return
        pace = tx.get(r.Pace, "newest")
        bought = pace.bought if pace and pace.minute == int(tx.now // 60) else 0
        if bought >= limit:
            raise NotAllowed(
                f"{bought} tasks were bought in this minute, and no more are allowed",
                hint="raise allowance.per_minute, or resume later",
            )

    def spend(self, tx: Transaction, attempt: Attempt, amount: Money, standing: Standing) -> None:
        """Turn an attempt's reservation into `amount` spent, once; raises NotAllowed above it."""
        if amount > attempt.at_most:
            raise NotAllowed(f"{amount} is more than the attempt's at most of {attempt.at_most}")
        if paid_before(tx, attempt.id) is not None:
            return  # a restored run settles again what its wallet has settled
        spent = e.Spent(
            attempt=attempt.id,
            provider=attempt.provider,
            amount=amount,
            standing=standing,
        )
        tx.append(e.WALLET, spent)

    def unreserve(self, tx: Transaction, attempt: Attempt) -> None:
        """Give an attempt's reservation back to its run's hold, unless it was paid."""
        if paid_before(tx, attempt.id) is None:
            tx.append(e.WALLET, e.Unreserved(attempt=attempt.id))

    def reduce(self, tx: Transaction, run: str, needed: int) -> None:
        """Give back what a run's hold has beyond `needed` units and its open reservations."""
        hold = tx.get(r.Hold, run)
        if hold is None:
            return
        unneeded = hold.left.units - max(needed, hold.reserved.units)
        if unneeded > 0:
            tx.append(e.WALLET, e.HoldReduced(run=run, amount=Money(unneeded, hold.left.asset)))

    def release(self, tx: Transaction, run: str) -> None:
        """End a run's hold, if it has one."""
        if tx.get(r.Hold, run):
            tx.append(e.WALLET, e.HoldReleased(run=run))

    def left(self, tx: Transaction, run: str) -> Money | None:
        """Return what a run's hold can still reserve, None without a hold."""
        hold = tx.get(r.Hold, run)
        if hold is None:
            return None
        return Money(max(0, hold.left.units - hold.reserved.units), hold.left.asset)


def used_so_far(tx: Transaction, like: Money, run: str = "") -> dict[str, Money]:
    """Return what was spent or set aside under each limit over time, in the asset of `like`.

    What is set aside for `run` is left out: a new plan of that run replaces the old one.
    """
    held = _total(tx, "held", like)
    own_hold = tx.get(r.Hold, run) if run else None
    if own_hold is not None:
        held = Money(max(0, held.units - own_hold.left.units), held.asset)
    spent_today = _total(tx, f"day:{day_of(tx.now)}", like)
    spent_ever = _total(tx, "ever", like)
    return {"per_day": spent_today + held, "total": spent_ever + held}


class Exposure:
    """The limit on money that lies with one payee and is not spent yet; None for no limit."""

    def __init__(self, limit: Money | None = None) -> None:
        self._limit = limit

    def within(self, tx: Transaction, payee: str, units: int, least: int) -> int:
        """Return how many of `units` more may be put with a payee.

        Raises OverBudget when fewer than `least` may.  Rails call this also in the transaction
        that signs the payment, so that two processes cannot pass the limit together.
        """
        if self._limit is None:
            return units
        unspent = self._unspent(tx, payee)
        room = max(0, self._limit.units - unspent)
        if room < least:
            needed = Money(unspent + least, self._limit.asset)
            raise OverBudget("exposure", needed, self._limit)
        return min(units, room)

    def _unspent(self, tx: Transaction, payee: str) -> int:
        """Return how many units lie with a payee, or are on their way to it, and are not spent."""
        accounts = [row for row in tx.every(r.Account) if row.account == payee]
        in_accounts = sum(
            row.funded.units - row.spent.units
            for row in accounts
            if row.rail in RAILS_HOLDING_FUNDS
        )
        in_lanes = sum(
            max(0, lane.spendable) for lane in tx.every(r.Lane) if lane.payee == payee and lane.open
        )
        signed = sum(row.deposit for row in tx.every(r.Channel) if row.payee == payee)
        opening = sum(row.price.units for row in tx.every(r.Escrow) if _is_opening(tx, row, payee))
        on_their_way = sum(row.amount.units for row in in_transit(tx, payee))
        return in_accounts + in_lanes + signed + opening + on_their_way


def _is_opening(tx: Transaction, row: r.Escrow, payee: str) -> bool:
    """Return whether an escrow is being opened: its money may lie with the payee already."""
    transaction = tx.get(r.EvmTransaction, opening_intent(row))
    is_quoted = row.payee == payee and row.state == "quoted"
    return is_quoted and transaction is not None and not transaction.final


RAILS_HOLDING_FUNDS = ("channel", "prepaid", "escrow")
"""The rails on which money lies in a payee's account before it is spent."""


def shortfall(
    tx: Transaction, exposure: Exposure, *, rail: str, payee: str, need: Money, attempt: Attempt
) -> int:
    """Return how many units to put with a payee so that `need` can be reserved; <= 0 for none.

    What is free with the payee counts first.  Never more than the open hold of the attempt's run,
    and than `exposure` allows; raises OverBudget when that is too little for the attempt itself.
    """
    account = tx.get(r.Account, f"{rail}|{payee}")
    free = account.free if account else 0
    hold = tx.get(r.Hold, attempt.run)
    unreserved = hold.left.units - hold.reserved.units if hold else 0

    missing = min(need.units, unreserved) - free
    if missing <= 0:
        return missing
    missing_for_attempt = max(0, attempt.at_most.units - free)
    return exposure.within(tx, payee, missing, least=missing_for_attempt)


def count_short_payees(
    tx: Transaction, rail: str, offers: Sequence[Offer], amounts: Sequence[Money]
) -> int:
    """Return how many payees have less free on a rail than what is planned with them.

    `amounts` are what each of the `offers` is planned to be paid.
    """
    planned: dict[str, int] = {}
    for offer, amount in zip(offers, amounts, strict=True):
        planned[offer.payee] = planned.get(offer.payee, 0) + amount.units

    accounts = tx.every(r.Account, f"{rail}|")
    free = {account.account: account.free for account in accounts}
    return sum(units > free.get(payee, 0) for payee, units in planned.items())


def paid_before(tx: Transaction, attempt: str) -> Money | None:
    """Return what an attempt was paid already, None if it was not.

    After a restore the wallet's books may know of a payment that the run's journal lacks.
    """
    reservation = tx.get(r.Reservation, attempt)
    if reservation is None or reservation.standing not in RECEIVED:
        return None
    return reservation.spent


def account_of(attempt: Attempt) -> str:
    """Return the account that a rail keeps for an attempt's payee."""
    return attempt.payee or attempt.provider


def _total(tx: Transaction, scope: str, like: Money) -> Money:
    """Return a running total of the books, zero if nothing was added to it."""
    total = tx.get(r.Total, f"{scope}|{like.asset.id}")
    return total.amount if total else like.asset.zero()
