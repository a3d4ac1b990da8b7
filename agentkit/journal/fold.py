"""How events change records.  Nothing else does.

Most events of a run fold into nothing: what a run has done is read from its own stream
(`journal.run_state`), so a node that costs nothing writes one row.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from agentkit.errors import IntentMismatch
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.market import tree
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Event, R, Record
from agentkit.money import Money


class Records(Protocol):
    """Where folding reads and writes."""

    def get(self, record: type[R], key: str) -> R | None: ...

    def put(self, record: Record) -> None: ...

    def drop(self, record: type[Record], key: str) -> None: ...

    def every(self, record: type[R], prefix: str = "") -> list[R]: ...


MOST_HEADS = 10
"""Anchored heads that are remembered: a node that lags may still show one before the newest."""

Fold = Callable[[Any, str, float, Records], None]

_FOLDS: dict[type[Event], Fold] = {}


def fold(event: Event, stream: str, at: float, rows: Records) -> None:
    """Change the records by one event, written at `at` (unix seconds) in `stream`."""
    change = _FOLDS.get(type(event))
    if change is not None:
        change(event, stream, at, rows)


def _folds(event: type[Event]) -> Callable[[Fold], Fold]:
    def remember(change: Fold) -> Fold:
        _FOLDS[event] = change
        return change

    return remember


# -- runs ----------------------------------------------------------------------------------------


@_folds(e.RunStarted)
def _(event: e.RunStarted, stream: str, at: float, rows: Records) -> None:
    rows.put(r.Run(run=stream, graph=event.plan.graph.name, started=at))


@_folds(e.RunResumed)
def _(event: e.RunResumed, stream: str, at: float, rows: Records) -> None:
    _update_run(rows, stream, state="running", why="", uncertain=False)


@_folds(e.RunPaused)
def _(event: e.RunPaused, stream: str, at: float, rows: Records) -> None:
    _update_run(rows, stream, state="paused", why=event.why, uncertain=event.uncertain)


@_folds(e.RunFinished)
def _(event: e.RunFinished, stream: str, at: float, rows: Records) -> None:
    _update_run(rows, stream, state=event.outcome)


def _update_run(rows: Records, run: str, **changes: object) -> None:
    known = _must(rows, r.Run, run)
    rows.put(known.model_copy(update=changes))


@_folds(e.AttemptClosed)
def _(event: e.AttemptClosed, stream: str, at: float, rows: Records) -> None:
    if event.refused:
        known = _reputation(rows, event.provider)
        rows.put(known.model_copy(update={"refused": known.refused + 1}))


@_folds(e.NodeDone)
def _(event: e.NodeDone, stream: str, at: float, rows: Records) -> None:
    if event.receipt:
        _delivered(event.outputs, (event.receipt, *event.others), event.task, rows)


@_folds(e.ItemDone)
def _(event: e.ItemDone, stream: str, at: float, rows: Records) -> None:
    if event.receipt:
        _delivered(event.outputs, (event.receipt, *event.others), event.task, rows)


def _delivered(
    outputs: tuple[e.Produced, ...], receipts: tuple[Receipt, ...], task: str, rows: Records
) -> None:
    for receipt in receipts:
        known = _reputation(rows, receipt.attempt.label)
        rows.put(known.model_copy(update={"delivered": known.delivered + 1}))
    if task:
        rows.put(r.Reusable(task=task, outputs=outputs))


def _reputation(rows: Records, provider: str) -> r.Reputation:
    return rows.get(r.Reputation, provider) or r.Reputation(provider=provider)


# -- budget --------------------------------------------------------------------------------------


@_folds(e.Held)
def _(event: e.Held, stream: str, at: float, rows: Records) -> None:
    zero = event.amount.asset.zero()
    hold = rows.get(r.Hold, event.run) or r.Hold(
        run=event.run, left=zero, reserved=zero, spent=zero
    )
    rows.put(hold.model_copy(update={"left": hold.left + event.amount, "released": False}))
    _total(rows, "held", event.amount)


@_folds(e.Reserved)
def _(event: e.Reserved, stream: str, at: float, rows: Records) -> None:
    hold = _must(rows, r.Hold, event.run)
    account = _account(rows, event.rail, event.account, event.amount)
    rows.put(hold.model_copy(update={"reserved": hold.reserved + event.amount}))
    rows.put(account.model_copy(update={"reserved": account.reserved + event.amount}))
    rows.put(
        r.Reservation(
            attempt=event.attempt,
            run=event.run,
            rail=event.rail,
            account=event.account,
            provider=event.provider,
            amount=event.amount,
        )
    )
    _total(rows, f"open:{event.provider}", event.amount)
    minute, pace = int(at // 60), rows.get(r.Pace, "newest")
    bought = pace.bought if pace and pace.minute == minute else 0
    rows.put(r.Pace(minute=minute, bought=bought + 1))


@_folds(e.Unreserved)
def _(event: e.Unreserved, stream: str, at: float, rows: Records) -> None:
    reservation = _close_reservation(rows, event.attempt)
    rows.put(reservation.model_copy(update={"standing": "unpaid"}))
    hold = rows.get(r.Hold, reservation.run)
    if hold:
        _keep_hold(rows, hold)


@_folds(e.Spent)
def _(event: e.Spent, stream: str, at: float, rows: Records) -> None:
    reservation = _close_reservation(rows, event.attempt)
    rows.put(reservation.model_copy(update={"spent": event.amount, "standing": event.standing}))
    account = _account(rows, reservation.rail, reservation.account, event.amount)
    rows.put(account.model_copy(update={"spent": account.spent + event.amount}))
    hold = rows.get(r.Hold, reservation.run)
    if hold:
        taken = Money(min(event.amount.units, hold.left.units), event.amount.asset)
        left, spent = hold.left - taken, hold.spent + event.amount
        _total(rows, "held", taken, back=True)
        _keep_hold(rows, hold.model_copy(update={"left": left, "spent": spent}))
    for scope in ("ever", f"day:{day_of(at)}", f"provider:{event.provider}"):
        _total(rows, scope, event.amount)


@_folds(e.HoldReleased)
def _(event: e.HoldReleased, stream: str, at: float, rows: Records) -> None:
    hold = rows.get(r.Hold, event.run)
    if hold:
        _total(rows, "held", hold.left - hold.reserved, back=True)
        _keep_hold(rows, hold.model_copy(update={"left": hold.reserved, "released": True}))


@_folds(e.HoldReduced)
def _(event: e.HoldReduced, stream: str, at: float, rows: Records) -> None:
    hold = rows.get(r.Hold, event.run)
    if hold:
        _total(rows, "held", event.amount, back=True)
        rows.put(hold.model_copy(update={"left": hold.left - event.amount}))


def _keep_hold(rows: Records, hold: r.Hold) -> None:
    """Write a hold, or drop it once its run has ended and nothing of it can be drawn any more."""
    if hold.released and not hold.reserved:
        _total(rows, "held", hold.left, back=True)
        rows.drop(r.Hold, hold.run)
    else:
        rows.put(hold)


def day_of(at: float) -> str:
    """Return the UTC day that a moment counts towards."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _close_reservation(rows: Records, attempt: str) -> r.Reservation:
    reservation = _must(rows, r.Reservation, attempt)
    if reservation.standing != "open":
        raise IntentMismatch(f"attempt {attempt[:12]} is already settled: {reservation.standing}")
    account = _account(rows, reservation.rail, reservation.account, reservation.amount)
    rows.put(account.model_copy(update={"reserved": account.reserved - reservation.amount}))
    _total(rows, f"open:{reservation.provider}", reservation.amount, back=True)
    hold = rows.get(r.Hold, reservation.run)
    if hold:
        rows.put(hold.model_copy(update={"reserved": hold.reserved - reservation.amount}))
    return reservation


def _account(rows: Records, rail: str, account: str, like: Money) -> r.Account:
    zero = like.asset.zero()
    return rows.get(r.Account, f"{rail}|{account}") or r.Account(
        rail=rail, account=account, funded=zero, spent=zero, reserved=zero
    )


def _total(rows: Records, scope: str, amount: Money, *, back: bool = False) -> None:
    row = rows.get(r.Total, f"{scope}|{amount.asset.id}")
    before = row.amount if row else amount.asset.zero()
    rows.put(r.Total(scope=scope, amount=before - amount if back else before + amount))


# -- chain ---------------------------------------------------------------------------------------


@_folds(e.TxSigned)
def _(event: e.TxSigned, stream: str, at: float, rows: Records) -> None:
    before = rows.get(r.Tx, event.intent)
    rows.put(
        r.Tx(
            intent=event.intent,
            call=event.call,
            nonce=event.nonce,
            transaction=event.transaction,
            raw=event.raw,
            cost=event.cost,
            earlier=before.transactions if before else (),
        )
    )
    chain = event.cost.asset.network
    noted = rows.get(r.Nonce, chain)
    following = max(event.nonce + 1, noted.following if noted else 0)
    rows.put(r.Nonce(chain=chain, following=following))


@_folds(e.TxFinal)
def _(event: e.TxFinal, stream: str, at: float, rows: Records) -> None:
    tx = _must(rows, r.Tx, event.intent)
    fields = ("transaction", "succeeded", "cost")
    changes = {field: getattr(event, field) for field in fields}
    rows.put(tx.model_copy(update={"final": True, **changes}))
    _total(rows, "gas", event.cost)


@_folds(e.ChannelOpened)
def _(event: e.ChannelOpened, stream: str, at: float, rows: Records) -> None:
    rows.put(r.Channel(**event.model_dump(), used=at))
    rows.put(r.CurrentChannel(payee=event.payee, channel=event.channel))


@_folds(e.ChannelFunded)
def _(event: e.ChannelFunded, stream: str, at: float, rows: Records) -> None:
    channel = _must(rows, r.Channel, event.channel)
    more = max(0, event.deposited.units - channel.deposited)  # read from the chain, it came before
    rows.put(channel.model_copy(update={"deposited": channel.deposited + more}))
    if not channel.closing:  # what arrives later comes back with the rest
        amount = Money(more, event.amount.asset)
        account = _account(rows, "channel", channel.payee, amount)
        rows.put(account.model_copy(update={"funded": account.funded + amount}))


@_folds(e.VoucherSigned)
def _(event: e.VoucherSigned, stream: str, at: float, rows: Records) -> None:
    channel = _must(rows, r.Channel, event.channel)
    price = event.cumulative.units - channel.cumulative
    peaks = tree.added(channel.peaks, channel.leaves, bytes.fromhex(event.leaf))
    changes = {
        **_promised(event),
        "used": at,
        "peaks": peaks,
        "leaves": channel.leaves + 1,
        "root": tree.root_of(peaks).hex(),
    }
    rows.put(_without(channel, event.attempt, owed=price).model_copy(update=changes))


def _promised(event: e.VoucherSigned | e.VoucherFound) -> dict[str, object]:
    return {
        "cumulative": event.cumulative.units,
        "tasks": event.tasks,
        "voucher": event.signature,
    }


def _grown_from(root: str) -> dict[str, object]:
    """Return the tree of a channel whose leaves are lost: the root over them is its first leaf."""
    first = tree.leaf_of(bytes.fromhex(root)).hex()
    return {"peaks": (first,), "leaves": 1, "root": root}


def _without(channel: r.Channel, attempt: str, *, owed: int) -> r.Channel:
    """Return a channel with one attempt less of those that our books lack."""
    if attempt not in channel.old:
        return channel
    rest = tuple(other for other in channel.old if other != attempt)
    return channel.model_copy(update={"old": rest, "owed": max(0, channel.owed - owed)})


@_folds(e.VoucherFound)
def _(event: e.VoucherFound, stream: str, at: float, rows: Records) -> None:
    channel = _must(rows, r.Channel, event.channel)
    lost = max(0, event.cumulative.units - channel.cumulative)
    if lost:
        channel = channel.model_copy(
            update={
                **_promised(event),
                **_grown_from(event.root),
                "unexplained": channel.unexplained + lost,
                "found_on": day_of(at),
            }
        )
        _count_found(rows, channel, Money(lost, event.cumulative.asset))
        if channel.closing:
            _fund_account(rows, channel, lost)  # it had been taken out with the rest
    owed = max(0, event.delivered.units - channel.cumulative)
    rows.put(channel.model_copy(update={"doubtful": False, "old": event.attempts, "owed": owed}))


@_folds(e.VoucherMatched)
def _(event: e.VoucherMatched, stream: str, at: float, rows: Records) -> None:
    channel = _must(rows, r.Channel, event.channel)
    left = channel.unexplained - event.amount.units
    channel = _without(channel, event.attempt, owed=0)
    rows.put(channel.model_copy(update={"unexplained": left}))
    _count_found(rows, channel, event.amount, back=True)


def _count_found(rows: Records, channel: r.Channel, amount: Money, *, back: bool = False) -> None:
    """Count what a found voucher promised as spent, or no more: its attempt counts it now."""
    account = _account(rows, "channel", channel.payee, amount)
    spent = account.spent - amount if back else account.spent + amount
    rows.put(account.model_copy(update={"spent": spent}))
    for scope in ("ever", f"provider:{channel.provider}"):
        _total(rows, scope, amount, back=back)
    day = f"day:{channel.found_on}"
    known = rows.get(r.Total, f"{day}|{amount.asset.id}")
    most = known.amount.units if known else 0  # what was found on several days goes back on one
    units = min(amount.units, most) if back else amount.units
    _total(rows, day, Money(units, amount.asset), back=back)


@_folds(e.ChannelClosing)
def _(event: e.ChannelClosing, stream: str, at: float, rows: Records) -> None:
    channel = _must(rows, r.Channel, event.channel)
    rows.put(channel.model_copy(update={"closing": True}))
    rows.drop(r.CurrentChannel, channel.payee)
    _fund_account(rows, channel, -_rest(channel))


def _rest(channel: r.Channel) -> int:
    """What of a channel's deposit is promised to nobody."""
    return channel.deposited - channel.cumulative


def _fund_account(rows: Records, channel: r.Channel, units: int) -> None:
    """Change what an account was funded with by units, which may be less than nothing."""
    row = rows.get(r.Account, f"channel|{channel.payee}")
    if row:
        funded = Money(row.funded.units + units, row.funded.asset)
        rows.put(row.model_copy(update={"funded": funded}))


@_folds(e.Restored)
def _(event: e.Restored, stream: str, at: float, rows: Records) -> None:
    rows.put(r.Restoration(**event.model_dump(exclude={"anchor"})))
    if event.anchor:
        _anchor(rows, event.anchor, at)
    for channel in rows.every(r.Channel):
        if channel.open:
            rows.put(channel.model_copy(update={"doubtful": True}))


@_folds(e.HeadChosen)
def _(event: e.HeadChosen, stream: str, at: float, rows: Records) -> None:
    _anchor(rows, event.head, at)
    for name, (seq, _) in event.heads.items():
        rows.put(r.AnchoredStream(stream=name, seq=seq))


def _anchor(rows: Records, head: str, at: float) -> None:
    known = rows.get(r.Anchor, "newest")
    heads = (head, *(known.heads if known else ("",)))
    rows.put(r.Anchor(heads=heads[:MOST_HEADS], at=at))


@_folds(e.ChannelClosed)
def _(event: e.ChannelClosed, stream: str, at: float, rows: Records) -> None:
    channel = _must(rows, r.Channel, event.channel)
    rows.put(channel.model_copy(update={"open": False}))


@_folds(e.ChannelCloseRequested)
def _(event: e.ChannelCloseRequested, stream: str, at: float, rows: Records) -> None:
    channel = _must(rows, r.Channel, event.channel)
    rows.put(channel.model_copy(update={"closes_at": event.closes_at}))


@_folds(e.EscrowQuoted)
def _(event: e.EscrowQuoted, stream: str, at: float, rows: Records) -> None:
    rows.put(r.Escrow(**event.model_dump(exclude={"price"}), price=event.price))


@_folds(e.EscrowOpened)
def _(event: e.EscrowOpened, stream: str, at: float, rows: Records) -> None:
    job = _must(rows, r.Escrow, event.attempt)
    rows.put(job.model_copy(update={"state": "open", "at": at}))
    account = _account(rows, "escrow", job.payee, event.amount)
    rows.put(account.model_copy(update={"funded": account.funded + event.amount}))


@_folds(e.EscrowAccepted)
def _(event: e.EscrowAccepted, stream: str, at: float, rows: Records) -> None:
    job = _must(rows, r.Escrow, event.attempt)
    word = {"paid": event.amount.units, "result": event.result, "accept": event.signature}
    rows.put(job.model_copy(update={"state": "accepted", **word}))


@_folds(e.EscrowClosed)
def _(event: e.EscrowClosed, stream: str, at: float, rows: Records) -> None:
    job = _must(rows, r.Escrow, event.attempt)
    rows.put(job.model_copy(update={"state": "closed", "paid": event.paid.units}))
    account = _account(rows, "escrow", job.payee, event.refunded)
    rows.put(account.model_copy(update={"funded": account.funded - event.refunded}))


@_folds(e.CreditFunded)
def _(event: e.CreditFunded, stream: str, at: float, rows: Records) -> None:
    account = _account(rows, "prepaid", event.account, event.amount)
    rows.put(account.model_copy(update={"funded": account.funded + event.amount}))
    rows.put(r.Credited(transaction=event.transaction))


@_folds(e.AuthorizationSigned)
def _(event: e.AuthorizationSigned, stream: str, at: float, rows: Records) -> None:
    rows.put(r.Authorization(**event.model_dump()))
    rows.put(r.Outstanding(attempt=event.attempt))
    _total(rows, "signed", event.amount)


@_folds(e.AuthorizationEnded)
def _(event: e.AuthorizationEnded, stream: str, at: float, rows: Records) -> None:
    known = _must(rows, r.Authorization, event.attempt)
    rows.put(known.model_copy(update={"outcome": event.outcome}))
    rows.drop(r.Outstanding, event.attempt)
    _total(rows, "signed", known.amount, back=True)
    if event.outcome == "expired":
        _give_back(rows, known)


def _give_back(rows: Records, expired: r.Authorization) -> None:
    """Take back that an attempt was spent: its payee never drew it, and never can.

    The day on which it was spent still counts it, and so does its run.
    """
    reservation = rows.get(r.Reservation, expired.attempt)
    if reservation is None or not reservation.spent:
        return
    rows.put(reservation.model_copy(update={"spent": reservation.spent.asset.zero()}))
    account = _account(rows, reservation.rail, reservation.account, reservation.spent)
    rows.put(account.model_copy(update={"spent": account.spent - reservation.spent}))
    for scope in ("ever", f"provider:{expired.provider}"):
        _total(rows, scope, reservation.spent, back=True)


# -- the agent -----------------------------------------------------------------------------------


FACT_VALUES = 100
"""Values of a fact that are kept where no retention is set; part of the format."""


@_folds(e.NoteAdded)
def _(event: e.NoteAdded, stream: str, at: float, rows: Records) -> None:
    known = _note_count(rows, event.topic)
    known = known.model_copy(update={"count": known.count + 1})
    rows.put(r.Note(topic=event.topic, number=known.count, text=event.text, at=at))
    _retain_notes(rows, known, at)


@_folds(e.FactLearned)
def _(event: e.FactLearned, stream: str, at: float, rows: Records) -> None:
    known = _fact_count(rows, event.key)
    known = known.model_copy(update={"count": known.count + 1})
    source = event.model_dump(exclude={"key", "value", "price"})
    fact = r.Fact(
        name=event.key, number=known.count, value=event.value, at=at, price=event.price, **source
    )
    rows.put(fact)
    _retain_values(rows, known, at)


@_folds(e.Forgotten)
def _(event: e.Forgotten, stream: str, at: float, rows: Records) -> None:
    none = r.Retention(what=event.what, name=event.name, newest=-1)
    if event.what == "notes":
        _cut(rows, _note_count(rows, event.name), r.Note, none, at)
    else:
        _cut(rows, _fact_count(rows, event.name), r.Fact, none, at)


@_folds(e.RetentionSet)
def _(event: e.RetentionSet, stream: str, at: float, rows: Records) -> None:
    rows.put(r.Retention(**event.model_dump()))
    if event.what == "notes":
        _retain_notes(rows, _note_count(rows, event.name), at)
    else:
        _retain_values(rows, _fact_count(rows, event.name), at)


def _note_count(rows: Records, topic: str) -> r.NoteCount:
    return rows.get(r.NoteCount, topic) or r.NoteCount(topic=topic)


def _fact_count(rows: Records, name: str) -> r.FactCount:
    return rows.get(r.FactCount, name) or r.FactCount(name=name)


def _retain_notes(rows: Records, known: r.NoteCount, at: float) -> None:
    rule = rows.get(r.Retention, f"notes|{known.topic}")
    _cut(rows, known, r.Note, rule or r.Retention(what="notes", name=known.topic), at)


def _retain_values(rows: Records, known: r.FactCount, at: float) -> None:
    rule = rows.get(r.Retention, f"fact|{known.name}")
    default = r.Retention(what="fact", name=known.name, newest=FACT_VALUES)
    _cut(rows, known, r.Fact, rule or default, at)


def _cut(
    rows: Records,
    known: r.NoteCount | r.FactCount,
    record: type[r.Note] | type[r.Fact],
    rule: r.Retention,
    at: float,
) -> None:
    """Drop what a rule lets go of, oldest first; a rule that keeps -1 lets go of everything."""
    first = known.first
    while first <= known.count:
        key = f"{known.key}|{first:09d}"
        row = rows.get(record, key)
        too_many = rule.newest != 0 and first <= known.count - max(rule.newest, 0)
        if not too_many and row is not None and not rule.is_over(row.at, at):
            break
        rows.drop(record, key)
        first += 1
    rows.put(known.model_copy(update={"first": first}))


@_folds(e.Shelved)
def _(event: e.Shelved, stream: str, at: float, rows: Records) -> None:
    for name, value in event.entries.items():
        rows.put(r.Entry(shelf=event.shelf, name=name, value=value, at=at))


@_folds(e.Unshelved)
def _(event: e.Unshelved, stream: str, at: float, rows: Records) -> None:
    for name in event.names:
        rows.drop(r.Entry, f"{event.shelf}|{name}")
    if event.prefixes:
        shared = _shared(event.prefixes)  # one look at the records, however many begin with it
        for entry in rows.every(r.Entry, f"{event.shelf}|{shared}"):
            if entry.name.startswith(event.prefixes):
                rows.drop(r.Entry, entry.key)


def _shared(names: tuple[str, ...]) -> str:
    """Return how all names begin."""
    first, last = min(names), max(names)
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((n for n, (one, other) in pairs if one != other), len(first))]


@_folds(e.CancelAsked)
def _(event: e.CancelAsked, stream: str, at: float, rows: Records) -> None:
    rows.put(r.CancelRequest(run=event.run))


# -- provider nodes ------------------------------------------------------------------------------


@_folds(e.UploadSigned)
def _(event: e.UploadSigned, stream: str, at: float, rows: Records) -> None:
    _total(rows, "uploads", event.fee)


@_folds(e.UploadDropped)
def _(event: e.UploadDropped, stream: str, at: float, rows: Records) -> None:
    _total(rows, "uploads", event.fee, back=True)


@_folds(e.JobTaken)
def _(event: e.JobTaken, stream: str, at: float, rows: Records) -> None:
    before = rows.get(r.Job, event.attempt)
    executions = before.executions if before else 0
    rows.put(r.Job(**event.model_dump(), executions=executions))
    _work_on(rows, event.channel, event.at_most.units)


@_folds(e.JobStarted)
def _(event: e.JobStarted, stream: str, at: float, rows: Records) -> None:
    job = _must(rows, r.Job, event.attempt)
    changes = {"state": "running", "executions": job.executions + 1}
    rows.put(job.model_copy(update=changes))


@_folds(e.JobEnded)
def _(event: e.JobEnded, stream: str, at: float, rows: Records) -> None:
    job = _must(rows, r.Job, event.attempt)
    fields = ("state", "reason", "fault", "outputs", "usage", "price", "signature", "model")
    rows.put(job.model_copy(update={field: getattr(event, field) for field in fields}))
    _work_on(rows, job.channel, -job.at_most.units, event.price.units if event.price else 0)


def _work_on(rows: Records, channel: str, working: int, delivered: int = 0) -> None:
    booked = rows.get(r.BookedChannel, channel)
    if booked:
        changes = {
            "working": booked.working + working,
            "delivered": booked.delivered + delivered,
        }
        rows.put(booked.model_copy(update=changes))


@_folds(e.VoucherTaken)
def _(event: e.VoucherTaken, stream: str, at: float, rows: Records) -> None:
    before = rows.get(r.BookedChannel, event.channel)
    rows.put(
        r.BookedChannel(
            channel=event.channel,
            payer=event.payer,
            token=event.token,
            close_delay=event.close_delay,
            salt=event.salt,
            deposited=event.deposited.units,
            cumulative=event.cumulative.units,
            tasks=event.tasks,
            root=event.root,
            signature=event.signature,
            delivered=before.delivered if before else 0,
            working=before.working if before else 0,
            closing=before.closing if before else False,
        )
    )


@_folds(e.CloseSeen)
def _(event: e.CloseSeen, stream: str, at: float, rows: Records) -> None:
    booked = _must(rows, r.BookedChannel, event.channel)
    rows.put(booked.model_copy(update={"closing": True}))


@_folds(e.EscrowEarned)
def _(event: e.EscrowEarned, stream: str, at: float, rows: Records) -> None:
    word = {"job": event.job, "pay": event.pay, "result": event.result, "accept": event.accept}
    rows.put(_earned(rows, event.attempt).model_copy(update=word))


@_folds(e.EscrowGivenBack)
def _(event: e.EscrowGivenBack, stream: str, at: float, rows: Records) -> None:
    job = rows.get(r.Job, event.attempt)  # where an event of version 1 has its job's id
    identity = event.id or (job.channel if job else "")
    if identity:
        rows.put(r.GivenBack(id=identity))


@_folds(e.EscrowSubmitted)
def _(event: e.EscrowSubmitted, stream: str, at: float, rows: Records) -> None:
    rows.put(_earned(rows, event.attempt).model_copy(update={"due": event.due}))


@_folds(e.EscrowSettled)
def _(event: e.EscrowSettled, stream: str, at: float, rows: Records) -> None:
    rows.put(_earned(rows, event.attempt).model_copy(update={"settled": True}))


def _earned(rows: Records, attempt: str) -> r.EarnedEscrow:
    return rows.get(r.EarnedEscrow, attempt) or r.EarnedEscrow(attempt=attempt)


@_folds(e.ChannelSettled)
def _(event: e.ChannelSettled, stream: str, at: float, rows: Records) -> None:
    booked = _must(rows, r.BookedChannel, event.channel)
    rows.put(booked.model_copy(update={"settled": True}))


@_folds(e.PaymentTaken)
def _(event: e.PaymentTaken, stream: str, at: float, rows: Records) -> None:
    rows.put(r.PaidRequest(**event.model_dump()))
    if event.identifier:
        rows.put(r.PaymentName(identifier=event.identifier, payment=event.payment))


@_folds(e.PaymentSettled)
def _(event: e.PaymentSettled, stream: str, at: float, rows: Records) -> None:
    known = _must(rows, r.PaidRequest, event.payment)
    rows.put(known.model_copy(update={"transaction": event.transaction}))


@_folds(e.PaymentAnswered)
def _(event: e.PaymentAnswered, stream: str, at: float, rows: Records) -> None:
    known = _must(rows, r.PaidRequest, event.payment)
    rows.put(known.model_copy(update=event.model_dump(exclude={"payment"})))


def _must(rows: Records, record: type[R], key: str) -> R:
    found = rows.get(record, key)
    if found is None:
        raise IntentMismatch(f"there is no {record.__name__} {key[:24]!r} that this could change")
    return found
