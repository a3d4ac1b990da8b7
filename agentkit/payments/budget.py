"""The budget: limits per task, run, day and ever, kept in the state file for all processes.

Every check and the event that depends on it are one transaction, so six processes that race for
the last unit leave one with it.
"""

from __future__ import annotations

from agentkit.errors import NotAllowed, OverBudget
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.subjects.budget import day_of
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt
from agentkit.market.receipt import Standing
from agentkit.market.seams import Transaction
from agentkit.money import Money

SETTLED = ("paid", "billed elsewhere")
"""How a reservation stands whose attempt delivered."""


class Budget:
    """The wallet's ledger under one allowance; see `market.seams.Ledger`."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance

    def hold(self, tx: Transaction, run: str, amount: Money, budget: Money | None) -> None:
        if not amount:
            return
        hold = tx.get(r.Hold, run)
        in_run = amount.asset.zero() if hold is None else hold.left + hold.spent
        used = used_so_far(tx, amount)
        for name, limit, already in (
            ("budget", budget, in_run),
            ("per_run", self.allowance.per_run, in_run),
            ("per_day", self.allowance.per_day, used["per_day"]),
            ("total", self.allowance.total, used["total"]),
        ):
            if limit is not None and already + amount > limit:
                raise OverBudget(name, already + amount, limit, already=already)
        tx.append(e.WALLET, e.Held(run=run, amount=amount))

    def reserve(self, tx: Transaction, attempt: Attempt) -> None:
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
        known = tx.get(r.Reservation, attempt.id)
        if known and known.standing in ("open", *SETTLED):
            return  # a restored run asks again for what its wallet remembers
        self._check_provider(tx, attempt)
        self._check_pace(tx)
        left = self.left(tx, attempt.run)
        if left is None and not attempt.at_most:  # what costs nothing was never held for
            tx.append(e.WALLET, e.Held(run=attempt.run, amount=attempt.at_most))
            left = attempt.at_most
        if left is None or attempt.at_most > left:
            raise OverBudget("hold", attempt.at_most, left or attempt.at_most.asset.zero())
        tx.append(
            e.WALLET,
            e.Reserved(
                attempt=attempt.id,
                run=attempt.run,
                rail=attempt.rail,
                account=account_of(attempt),
                amount=attempt.at_most,
                provider=attempt.provider,
            ),
        )

    def is_reserved(self, tx: Transaction, attempt: Attempt) -> bool:
        known = tx.get(r.Reservation, attempt.id)
        return known is not None and known.standing == "open"

    def _check_provider(self, tx: Transaction, attempt: Attempt) -> None:
        limit = self.allowance.per_provider
        if limit is None:
            return
        spent = _total(tx, f"provider:{attempt.provider}", limit)
        reserved = _total(tx, f"open:{attempt.provider}", limit)
        # Reservations of an early version do not say with whom: they count against everybody.
        unnamed = _total(tx, "open:", limit)
        needed = spent + reserved + unnamed + attempt.at_most
        if needed > limit:
            raise OverBudget("per_provider", needed, limit)

    def _check_pace(self, tx: Transaction) -> None:
        limit, pace = self.allowance.per_minute, tx.get(r.Pace, "newest")
        if limit is None:
            return
        bought = pace.bought if pace and pace.minute == int(tx.now // 60) else 0
        if bought >= limit:
            raise NotAllowed(
                f"{bought} tasks were bought in this minute, and no more are allowed",
                hint="raise allowance.per_minute, or resume later",
            )

    def spend(self, tx: Transaction, attempt: Attempt, amount: Money, standing: Standing) -> None:
        if amount > attempt.at_most:
            raise NotAllowed(f"{amount} is more than the attempt's at most of {attempt.at_most}")
        if paid_before(tx, attempt.id) is not None:
            return
        tx.append(
            e.WALLET,
            e.Spent(
                attempt=attempt.id, provider=attempt.provider, amount=amount, standing=standing
            ),
        )

    def unreserve(self, tx: Transaction, attempt: Attempt) -> None:
        if paid_before(tx, attempt.id) is None:
            tx.append(e.WALLET, e.Unreserved(attempt=attempt.id))

    def reduce(self, tx: Transaction, run: str, needed: int) -> None:
        hold = tx.get(r.Hold, run)
        if hold is None:
            return
        unneeded = hold.left.units - max(needed, hold.reserved.units)
        if unneeded > 0:
            tx.append(e.WALLET, e.HoldReduced(run=run, amount=Money(unneeded, hold.left.asset)))

    def release(self, tx: Transaction, run: str) -> None:
        if tx.get(r.Hold, run):
            tx.append(e.WALLET, e.HoldReleased(run=run))

    def left(self, tx: Transaction, run: str) -> Money | None:
        hold = tx.get(r.Hold, run)
        if hold is None:
            return None
        return Money(max(0, hold.left.units - hold.reserved.units), hold.left.asset)


def used_so_far(tx: Transaction, like: Money, run: str = "") -> dict[str, Money]:
    """Return what was spent or set aside under each limit over time, in the asset of `like`.

    What is still set aside for `run` is left out: a new plan of it takes its place.
    """
    held = _total(tx, "held", like)
    own = tx.get(r.Hold, run) if run else None
    if own is not None:
        held = Money(max(0, held.units - own.left.units), held.asset)
    today, ever = _total(tx, f"day:{day_of(tx.now)}", like), _total(tx, "ever", like)
    return {"per_day": today + held, "total": ever + held}


class Exposure:
    """How much may lie with one payee and not be spent yet; without a limit there is no end."""

    def __init__(self, limit: Money | None = None) -> None:
        self._limit = limit

    def within(self, tx: Transaction, payee: str, units: int, least: int) -> int:
        """Return how many of `units` more may be put with a payee; raises OverBudget under `least`.

        Called in the transaction that signs, too, so that processes cannot pass it together.
        """
        if self._limit is None:
            return units
        accounts = [row for row in tx.every(r.Account) if row.account == payee]
        there = sum(row.funded.units - row.spent.units for row in accounts if row.rail in HOLDS)
        there += sum(row.price.units for row in tx.every(r.Escrow) if _is_opening(tx, row, payee))
        room = max(0, self._limit.units - there)
        if room < least:
            asset = self._limit.asset
            raise OverBudget("exposure", Money(there + least, asset), self._limit)
        return min(units, room)


def _is_opening(tx: Transaction, row: r.Escrow, payee: str) -> bool:
    """Whether a job's opening is on its way: its money may lie with the payee already."""
    sent = tx.get(r.EvmTransaction, f"escrow:{row.attempt}:{row.id}")
    return (row.payee, row.state) == (payee, "quoted") and sent is not None and not sent.final


HOLDS = ("channel", "prepaid", "escrow")
"""The rails on which money lies with a payee before it is spent."""


def paid_before(tx: Transaction, attempt: str) -> Money | None:
    """Return what an attempt was paid already: a restored wallet may know more than its run."""
    known = tx.get(r.Reservation, attempt)
    return known.spent if known and known.standing in SETTLED else None


def account_of(attempt: Attempt) -> str:
    """Return the account a rail keeps for an attempt's payee."""
    return attempt.payee or attempt.provider


def _total(tx: Transaction, scope: str, like: Money) -> Money:
    row = tx.get(r.Total, f"{scope}|{like.asset.id}")
    return row.amount if row else like.asset.zero()
