"""Budget: money set aside for runs, reserved for attempts, spent, and the totals of it all.

Other subjects import `account` and `add_to_total` from here, because they move money too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, Literal

from agentkit.errors import IntentMismatch
from agentkit.journal.folding import Records, existing, folds
from agentkit.market.receipt import Standing
from agentkit.market.seams import Event, Record
from agentkit.money import Money

# -- events --------------------------------------------------------------------------------------


class Held(Event):
    """Money was set aside for a run."""

    stored_name: ClassVar[str] = "Held"
    run: str
    amount: Money


class Reserved(Event):
    """The most that an attempt can cost was taken out of its run's hold and its rail's account."""

    stored_name: ClassVar[str] = "Reserved"
    attempt: str
    run: str
    rail: str
    account: str
    amount: Money
    provider: str


class Unreserved(Event):
    """A reservation went back: the attempt will never be paid."""

    stored_name: ClassVar[str] = "Unreserved"
    attempt: str


class Spent(Event):
    """Of a reservation, `amount` was spent; the rest of it went back."""

    stored_name: ClassVar[str] = "Spent"
    attempt: str
    provider: str
    amount: Money
    standing: Standing


class HoldReleased(Event):
    """A run's hold ended."""

    stored_name: ClassVar[str] = "HoldReleased"
    run: str


class HoldReduced(Event):
    """A run that waits for a person gave back `amount` of its hold, which it no longer needs."""

    stored_name: ClassVar[str] = "HoldReduced"
    run: str
    amount: Money


# -- records -------------------------------------------------------------------------------------


class Hold(Record):
    """Money set aside for a run: what is left of it, and how much of that attempts reserved.

    `released`: the run has ended, and what is left are reservations that may still be drawn.
    """

    stored_name: ClassVar[str] = "Hold"
    run: str
    left: Money
    reserved: Money
    spent: Money
    released: bool = False

    @property
    def key(self) -> str:
        return self.run


class Reservation(Record):
    """The most that an attempt can cost, taken out of a hold and an account.

    `spent` is what it cost, once `standing` is no longer `open`.
    """

    stored_name: ClassVar[str] = "Reservation"
    attempt: str
    run: str
    rail: str
    account: str
    provider: str
    amount: Money
    spent: Money | None = None
    standing: Standing | Literal["open", "unpaid"] = "open"

    @property
    def key(self) -> str:
        return self.attempt


class Total(Record):
    """A sum of money in one scope and one asset.

    Scopes of what was spent: `ever`, `day:2026-01-31`, `provider:native`, `gas`, `uploads`.
    Scopes of what may still be spent: `held` for runs, `open:native` reserved with a provider,
    `signed` authorizations that were not drawn.
    """

    stored_name: ClassVar[str] = "Total"
    scope: str
    amount: Money

    @property
    def key(self) -> str:
        return f"{self.scope}|{self.amount.asset.id}"


class Pace(Record):
    """How many tasks were bought in the newest minute, which is counted from 1970."""

    stored_name: ClassVar[str] = "Pace"
    minute: int
    bought: int

    @property
    def key(self) -> str:
        return "newest"


class Account(Record):
    """What a rail has with one payee: money put in, money spent, money reserved for attempts.

    `uncertain` are the units of `spent` of which nobody knows whether the payee took them.
    """

    stored_name: ClassVar[str] = "Account"
    rail: str
    account: str
    funded: Money
    spent: Money
    reserved: Money
    uncertain: int = 0

    @property
    def key(self) -> str:
        return f"{self.rail}|{self.account}"

    @property
    def free(self) -> int:
        """Units that a further attempt may reserve; negative if others cost more than reserved."""
        return self.funded.units - self.spent.units - self.reserved.units


# -- folds: holds --------------------------------------------------------------------------------


@folds(Held)
def _fold_held(event: Held, stream: str, at: float, records: Records) -> None:
    zero = event.amount.asset.zero()
    hold = records.get(Hold, event.run)
    if hold is None:
        hold = Hold(run=event.run, left=zero, reserved=zero, spent=zero)
    records.put(hold.model_copy(update={"left": hold.left + event.amount, "released": False}))
    add_to_total(records, "held", event.amount)


@folds(HoldReleased)
def _fold_hold_released(event: HoldReleased, stream: str, at: float, records: Records) -> None:
    """Give back what nobody reserved; reservations stay until each of them is settled."""
    hold = records.get(Hold, event.run)
    if hold:
        subtract_from_total(records, "held", hold.left - hold.reserved)
        released = hold.model_copy(update={"left": hold.reserved, "released": True})
        _put_or_drop_hold(records, released)


@folds(HoldReduced)
def _fold_hold_reduced(event: HoldReduced, stream: str, at: float, records: Records) -> None:
    hold = records.get(Hold, event.run)
    if hold:
        subtract_from_total(records, "held", event.amount)
        records.put(hold.model_copy(update={"left": hold.left - event.amount}))


def _put_or_drop_hold(records: Records, hold: Hold) -> None:
    """Write a hold, or drop it once its run has ended and no reservation is left in it."""
    if hold.released and not hold.reserved:
        subtract_from_total(records, "held", hold.left)
        records.drop(Hold, hold.run)
    else:
        records.put(hold)


# -- folds: reservations -------------------------------------------------------------------------


@folds(Reserved)
def _fold_reserved(event: Reserved, stream: str, at: float, records: Records) -> None:
    """Reserve an attempt's money in three places: its hold, its account, its own record."""
    hold = existing(records, Hold, event.run)
    records.put(hold.model_copy(update={"reserved": hold.reserved + event.amount}))

    payee = account(records, rail=event.rail, payee=event.account, like=event.amount)
    records.put(payee.model_copy(update={"reserved": payee.reserved + event.amount}))

    records.put(
        Reservation(
            attempt=event.attempt,
            run=event.run,
            rail=event.rail,
            account=event.account,
            provider=event.provider,
            amount=event.amount,
        )
    )
    add_to_total(records, f"open:{event.provider}", event.amount)
    _count_in_pace(records, at)


def _count_in_pace(records: Records, at: float) -> None:
    """Count one more task bought in the minute of `at`."""
    minute = int(at // 60)
    pace = records.get(Pace, "newest")
    bought = pace.bought if pace and pace.minute == minute else 0
    records.put(Pace(minute=minute, bought=bought + 1))


@folds(Unreserved)
def _fold_unreserved(event: Unreserved, stream: str, at: float, records: Records) -> None:
    reservation = _close_reservation(records, event.attempt)
    records.put(reservation.model_copy(update={"standing": "unpaid"}))
    hold = records.get(Hold, reservation.run)
    if hold:
        _put_or_drop_hold(records, hold)


@folds(Spent)
def _fold_spent(event: Spent, stream: str, at: float, records: Records) -> None:
    """Turn a reservation into money spent: in its record, account, hold, and the totals."""
    reservation = _close_reservation(records, event.attempt)
    records.put(reservation.model_copy(update={"spent": event.amount, "standing": event.standing}))

    payee = account(records, rail=reservation.rail, payee=reservation.account, like=event.amount)
    # A balance shows no single debit, so what a provider says that it billed may not be gone.
    is_said_only = event.standing == "charged, not received" and reservation.rail == "prepaid"
    is_uncertain = event.standing == "uncertain" or is_said_only
    uncertain = event.amount.units if is_uncertain else 0
    changes = {"spent": payee.spent + event.amount, "uncertain": payee.uncertain + uncertain}
    records.put(payee.model_copy(update=changes))

    hold = records.get(Hold, reservation.run)
    if hold:
        _take_out_of_hold(records, hold, event.amount)
    for scope in ("ever", f"day:{day_of(at)}", f"provider:{event.provider}"):
        add_to_total(records, scope, event.amount)


def _take_out_of_hold(records: Records, hold: Hold, amount: Money) -> None:
    """Take an amount out of what a hold has left, which never falls below zero."""
    taken = Money(min(amount.units, hold.left.units), amount.asset)
    subtract_from_total(records, "held", taken)
    changes = {"left": hold.left - taken, "spent": hold.spent + amount}
    _put_or_drop_hold(records, hold.model_copy(update=changes))


def _close_reservation(records: Records, attempt: str) -> Reservation:
    """Take a reservation out of its account, hold and total, and return it as it was.

    Raises IntentMismatch if it is not open: an attempt is settled once.
    """
    reservation = existing(records, Reservation, attempt)
    if reservation.standing != "open":
        raise IntentMismatch(f"attempt {attempt[:12]} is already settled: {reservation.standing}")

    payee = account(
        records, rail=reservation.rail, payee=reservation.account, like=reservation.amount
    )
    records.put(payee.model_copy(update={"reserved": payee.reserved - reservation.amount}))
    subtract_from_total(records, f"open:{reservation.provider}", reservation.amount)

    hold = records.get(Hold, reservation.run)
    if hold:
        records.put(hold.model_copy(update={"reserved": hold.reserved - reservation.amount}))
    return reservation


# -- for other subjects --------------------------------------------------------------------------


def account(records: Records, *, rail: str, payee: str, like: Money) -> Account:
    """Return the account of a rail with a payee; a new one has zeros in the asset of `like`."""
    zero = like.asset.zero()
    return records.get(Account, f"{rail}|{payee}") or Account(
        rail=rail, account=payee, funded=zero, spent=zero, reserved=zero
    )


def add_to_total(records: Records, scope: str, amount: Money) -> None:
    """Add an amount to the total of a scope."""
    records.put(Total(scope=scope, amount=_total(records, scope, amount) + amount))


def subtract_from_total(records: Records, scope: str, amount: Money) -> None:
    """Subtract an amount from the total of a scope."""
    records.put(Total(scope=scope, amount=_total(records, scope, amount) - amount))


def _total(records: Records, scope: str, like: Money) -> Money:
    """Return the total of a scope in the asset of `like`."""
    total = records.get(Total, f"{scope}|{like.asset.id}")
    return total.amount if total else like.asset.zero()


def day_of(at: float) -> str:
    """Return the UTC day that a moment (unix seconds) counts towards, as `2026-01-31`."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()
