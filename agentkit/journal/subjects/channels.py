"""Channels: payment channels as their payer sees them, and the vouchers signed on them.

A voucher is a cumulative promise: the newest one covers all before it.  So after a restore the
payee may hold a newer voucher than this state file knows.  The channel is then `doubtful` until
the payee has shown its newest voucher (`VoucherFound`).
"""

from __future__ import annotations

from typing import ClassVar

from agentkit.journal.folding import Records, existing, folds, update
from agentkit.journal.subjects.budget import (
    Account,
    Total,
    account,
    add_to_total,
    day_of,
    subtract_from_total,
)
from agentkit.market import tree
from agentkit.market.seams import Event, Record
from agentkit.money import Money

# -- events --------------------------------------------------------------------------------------


class ChannelOpened(Event):
    """A payment channel was chosen: its terms, whose hash is `channel`.

    `scheme` as in `Channel`.
    """

    stored_name: ClassVar[str] = "ChannelOpened"
    channel: str
    provider: str
    provider_node: str
    payer: str
    payee: str
    token: str
    close_delay: int
    salt: str
    scheme: str = ""


class TopUpSigned(Event):
    """A deposit into a channel was signed; until `valid_before` (unix seconds) it may be drawn.

    `deposit_salt` and `signature` in hex, as they travel.
    """

    stored_name: ClassVar[str] = "TopUpSigned"
    channel: str
    amount: Money
    deposit_salt: str
    valid_before: int
    signature: str


class TopUpEnded(Event):
    """The chain shows that a channel's deposit was drawn, or that it never can be."""

    stored_name: ClassVar[str] = "TopUpEnded"
    channel: str
    amount: Money
    drawn: bool


class ChannelFunded(Event):
    """A channel's deposit grew to `deposited`."""

    stored_name: ClassVar[str] = "ChannelFunded"
    channel: str
    amount: Money
    deposited: Money


class VoucherSigned(Event):
    """A voucher over `cumulative` in all was signed, to pay for an attempt.

    `leaf` is what the attempt's delivery adds to the tree whose root the voucher names, "" where
    vouchers name none.
    """

    stored_name: ClassVar[str] = "VoucherSigned"
    channel: str
    attempt: str
    cumulative: Money
    tasks: int
    signature: str
    leaf: str


class VoucherFound(Event):
    """A payee showed our newest voucher, after a restore that may lack it.

    `delivered` is what the payee says it delivered on the channel in all, `attempts` are those
    of its deliveries that our books lack.
    """

    stored_name: ClassVar[str] = "VoucherFound"
    channel: str
    cumulative: Money
    tasks: int
    signature: str
    root: str
    delivered: Money
    attempts: tuple[str, ...] = ()


class VoucherMatched(Event):
    """A restored run took up an attempt again that a found voucher had already paid for."""

    stored_name: ClassVar[str] = "VoucherMatched"
    channel: str
    attempt: str
    amount: Money


class ChannelClosing(Event):
    """A channel is being closed: no attempt is open on it, and none will be opened."""

    stored_name: ClassVar[str] = "ChannelClosing"
    channel: str


class ChannelClosed(Event):
    """A channel ended: what the provider claimed, and what came back."""

    stored_name: ClassVar[str] = "ChannelClosed"
    channel: str
    claimed: Money
    refunded: Money


class ChannelCloseRequested(Event):
    """The payer asked the contract for the rest of a channel; anybody may finish at `closes_at`."""

    stored_name: ClassVar[str] = "ChannelCloseRequested"
    channel: str
    closes_at: int


# -- records -------------------------------------------------------------------------------------


class Channel(Record):
    """A payment channel as its payer sees it; ids in hex, money in units of `token`.

    `scheme`: the x402 scheme whose contract holds the money, "" for `AgentChannels`, on which
    nothing is bought any more.  `deposit` is signed under `authorization`, with `deposit_salt`,
    and not seen on the chain yet; it may be drawn until `valid_before`.  `voucher` is
    the newest signature and `used` when it was signed.  In `AgentChannels`, `root` is the root of
    the tree over what was paid, `peaks` and `leaves` the tree, see `market.tree`.  `closing`: no
    attempt is opened on it any more.  `closes_at`: when its rest may be taken without the payee,
    0 while nobody asked for that.

    After a restore: `doubtful` until the payee has shown its newest voucher.  Then `unexplained`
    is what that voucher promised beyond our books, found on the day `found_on`.  `old` are the
    attempts that the payee had delivered and that our books lack, `owed` what it had not been
    paid for them.
    """

    stored_name: ClassVar[str] = "Channel"
    channel: str
    provider: str
    provider_node: str
    payer: str
    payee: str
    token: str
    close_delay: int
    salt: str
    deposited: int = 0
    cumulative: int = 0
    tasks: int = 0
    voucher: str = ""
    peaks: tuple[str, ...] = ()
    leaves: int = 0
    root: str = ""
    open: bool = True
    doubtful: bool = False
    closing: bool = False
    closes_at: int = 0
    used: float = 0.0
    unexplained: int = 0
    found_on: str = ""
    old: tuple[str, ...] = ()
    owed: int = 0
    scheme: str = ""
    deposit: int = 0
    deposit_salt: str = ""
    valid_before: int = 0
    authorization: str = ""

    @property
    def key(self) -> str:
        return self.channel

    @property
    def label(self) -> str:
        """How people tell this channel's provider node from the others."""
        return f"{self.provider}/{self.provider_node}" if self.provider_node else self.provider


class CurrentChannel(Record):
    """The open channel with a payee."""

    stored_name: ClassVar[str] = "CurrentChannel"
    payee: str
    channel: str

    @property
    def key(self) -> str:
        return self.payee


# -- folds: opening and paying -------------------------------------------------------------------


@folds(ChannelOpened)
def _fold_channel_opened(event: ChannelOpened, stream: str, at: float, records: Records) -> None:
    records.put(Channel(**event.model_dump(), used=at))
    records.put(CurrentChannel(payee=event.payee, channel=event.channel))


@folds(TopUpSigned)
def _fold_top_up_signed(event: TopUpSigned, stream: str, at: float, records: Records) -> None:
    """Count a deposit as signed away; nothing is bought for it before the chain shows it."""
    channel = existing(records, Channel, event.channel)
    changes = {
        "deposit": event.amount.units,
        "deposit_salt": event.deposit_salt,
        "valid_before": event.valid_before,
        "authorization": event.signature,
    }
    records.put(channel.model_copy(update=changes))
    add_to_total(records, "signed", event.amount)


@folds(TopUpEnded)
def _fold_top_up_ended(event: TopUpEnded, stream: str, at: float, records: Records) -> None:
    channel = existing(records, Channel, event.channel)
    if channel.deposit:
        subtract_from_total(records, "signed", event.amount)
        changes = {"deposit": 0, "deposit_salt": "", "valid_before": 0, "authorization": ""}
        records.put(channel.model_copy(update=changes))


@folds(ChannelFunded)
def _fold_channel_funded(event: ChannelFunded, stream: str, at: float, records: Records) -> None:
    """Raise a channel's deposit to what the chain says, and its account by the difference."""
    channel = existing(records, Channel, event.channel)
    # Deposits are read from the chain, so an older reading may be folded after a newer one.
    units = max(0, event.deposited.units - channel.deposited)
    records.put(channel.model_copy(update={"deposited": channel.deposited + units}))
    if channel.closing:
        return  # it comes back with the rest, so nothing more can be bought for it

    amount = Money(units, event.amount.asset)
    payee = account(records, rail="channel", payee=channel.payee, like=amount)
    records.put(payee.model_copy(update={"funded": payee.funded + amount}))


@folds(VoucherSigned)
def _fold_voucher_signed(event: VoucherSigned, stream: str, at: float, records: Records) -> None:
    """Take the newest voucher, and add the attempt's leaf to the channel's tree."""
    channel = existing(records, Channel, event.channel)
    price = event.cumulative.units - channel.cumulative
    changes: dict[str, object] = {**_voucher_fields(event), "used": at}
    if event.leaf:
        peaks = tree.added(channel.peaks, channel.leaves, bytes.fromhex(event.leaf))
        root = tree.root_of(peaks).hex()
        changes |= {"peaks": peaks, "leaves": channel.leaves + 1, "root": root}
    explained = _without_old_attempt(channel, event.attempt, paid=price)
    records.put(explained.model_copy(update=changes))


def _voucher_fields(event: VoucherSigned | VoucherFound) -> dict[str, object]:
    return {
        "cumulative": event.cumulative.units,
        "tasks": event.tasks,
        "voucher": event.signature,
    }


# -- folds: after a restore ----------------------------------------------------------------------


def doubt_open_channels(records: Records) -> None:
    """Mark every open channel as doubtful, because the state was just restored."""
    for channel in records.every(Channel):
        if channel.open:
            records.put(channel.model_copy(update={"doubtful": True}))


@folds(VoucherFound)
def _fold_voucher_found(event: VoucherFound, stream: str, at: float, records: Records) -> None:
    """Take over the voucher that the payee showed; what it promises beyond our books is spent."""
    channel = existing(records, Channel, event.channel)
    unknown_units = max(0, event.cumulative.units - channel.cumulative)
    if unknown_units:
        channel = channel.model_copy(
            update={
                **_voucher_fields(event),
                **(_tree_from(event.root) if event.root else {}),
                "unexplained": channel.unexplained + unknown_units,
                "found_on": day_of(at),
            }
        )
        _count_found_as_spent(records, channel, Money(unknown_units, event.cumulative.asset))
        if channel.closing:
            # Closing had taken it out of the account with the rest, but it is not ours any more.
            _change_funds(records, channel, unknown_units)

    owed = max(0, event.delivered.units - channel.cumulative)
    changes = {"doubtful": False, "old": event.attempts, "owed": owed}
    records.put(channel.model_copy(update=changes))


@folds(VoucherMatched)
def _fold_voucher_matched(event: VoucherMatched, stream: str, at: float, records: Records) -> None:
    """Stop counting a found amount as spent: the attempt it was for counts it from now on."""
    channel = existing(records, Channel, event.channel)
    unexplained = channel.unexplained - event.amount.units
    channel = _without_old_attempt(channel, event.attempt, paid=0)
    records.put(channel.model_copy(update={"unexplained": unexplained}))
    _count_found_no_more(records, channel, event.amount)


def _tree_from(root: str) -> dict[str, object]:
    """Return the tree of a channel whose leaves are lost: the root over them is its first leaf."""
    first = tree.leaf_of(bytes.fromhex(root)).hex()
    return {"peaks": (first,), "leaves": 1, "root": root}


def _without_old_attempt(channel: Channel, attempt: str, *, paid: int) -> Channel:
    """Return a channel on which `attempt` is none of those that our books lack any more."""
    if attempt not in channel.old:
        return channel
    others = tuple(other for other in channel.old if other != attempt)
    return channel.model_copy(update={"old": others, "owed": max(0, channel.owed - paid)})


def _count_found_as_spent(records: Records, channel: Channel, amount: Money) -> None:
    """Count an amount as spent on which no attempt in our books was spent."""
    payee = account(records, rail="channel", payee=channel.payee, like=amount)
    records.put(payee.model_copy(update={"spent": payee.spent + amount}))
    for scope in ("ever", f"provider:{channel.provider}", f"day:{channel.found_on}"):
        add_to_total(records, scope, amount)


def _count_found_no_more(records: Records, channel: Channel, amount: Money) -> None:
    """Take back what `_count_found_as_spent` counted."""
    payee = account(records, rail="channel", payee=channel.payee, like=amount)
    records.put(payee.model_copy(update={"spent": payee.spent - amount}))
    for scope in ("ever", f"provider:{channel.provider}"):
        subtract_from_total(records, scope, amount)

    # `found_on` is one day, although amounts may have been found on several.  So the total of
    # that day can be smaller than what goes back; it must not fall below zero.
    day = f"day:{channel.found_on}"
    total = records.get(Total, f"{day}|{amount.asset.id}")
    units = min(amount.units, total.amount.units if total else 0)
    subtract_from_total(records, day, Money(units, amount.asset))


# -- folds: closing ------------------------------------------------------------------------------


@folds(ChannelClosing)
def _fold_channel_closing(event: ChannelClosing, stream: str, at: float, records: Records) -> None:
    """Stop buying on a channel, and take out of its account what is promised to nobody."""
    channel = existing(records, Channel, event.channel)
    records.put(channel.model_copy(update={"closing": True}))
    records.drop(CurrentChannel, channel.payee)
    unpromised = channel.deposited - channel.cumulative
    _change_funds(records, channel, -unpromised)


@folds(ChannelClosed)
def _fold_channel_closed(event: ChannelClosed, stream: str, at: float, records: Records) -> None:
    update(records, Channel, event.channel, open=False)


@folds(ChannelCloseRequested)
def _fold_close_requested(
    event: ChannelCloseRequested, stream: str, at: float, records: Records
) -> None:
    update(records, Channel, event.channel, closes_at=event.closes_at)


def _change_funds(records: Records, channel: Channel, units: int) -> None:
    """Add units, which may be negative, to what the account of a channel's payee was funded with.

    Nothing happens where there is no account yet.
    """
    payee = records.get(Account, f"channel|{channel.payee}")
    if payee:
        funded = Money(payee.funded.units + units, payee.funded.asset)
        records.put(payee.model_copy(update={"funded": funded}))
