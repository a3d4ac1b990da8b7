"""Channel payments: channels by x402 `batch-settlement` as their payer sees them.

A server serves one request of a channel at a time, so concurrent requests go over several channels
with it, its lanes.  A voucher lets the server claim up to a ceiling; what it really charged is
known when it answers.  So each lane knows what is charged, and the highest ceiling that was ever
signed.
"""

from __future__ import annotations

from typing import ClassVar

from agentkit.journal.folding import Records, existing, folds, update
from agentkit.journal.subjects.budget import add_to_total, subtract_from_total
from agentkit.market.seams import Event, Record
from agentkit.money import Money

RAIL = "batch-settlement"
"""The name of the rail."""

# -- events --------------------------------------------------------------------------------------


class LaneOpened(Event):
    """A channel was chosen as a lane with a payee; `config` are its terms as they travel."""

    stored_name: ClassVar[str] = "LaneOpened"
    channel: str
    provider: str
    provider_node: str
    payee: str
    lane: int
    config: dict[str, str | int]


class DepositSigned(Event):
    """A deposit into a lane was signed; until `valid_before` (unix seconds) it may be drawn.

    `salt` and `signature` in hex, as the payment carries them.
    """

    stored_name: ClassVar[str] = "DepositSigned"
    channel: str
    amount: Money
    salt: str
    valid_before: int
    signature: str


class DepositEnded(Event):
    """The chain shows that a lane's deposit was drawn, or that it never can be.

    `balance` is what the contract has in the channel, in base units.
    """

    stored_name: ClassVar[str] = "DepositEnded"
    channel: str
    amount: Money
    drawn: bool
    balance: int


class LanePromised(Event):
    """A voucher over `ceiling` units in all was signed for an attempt, of at most `at_most`."""

    stored_name: ClassVar[str] = "LanePromised"
    channel: str
    attempt: str
    at_most: Money
    ceiling: int
    signature: str


class LaneStated(Event):
    """The server says that it has charged a lane so many units in all.

    `signed` is the ceiling of the voucher of ours that it shows beside it, 0 without one; `balance`
    what the contract has in the channel.
    """

    stored_name: ClassVar[str] = "LaneStated"
    channel: str
    charged: int
    signed: int
    balance: int


class LaneCharged(Event):
    """An attempt was charged: the lane is free again."""

    stored_name: ClassVar[str] = "LaneCharged"
    channel: str
    attempt: str
    charge: Money


class LaneFreed(Event):
    """An attempt is over that was not charged, or, if `doubtful`, of which that is not known."""

    stored_name: ClassVar[str] = "LaneFreed"
    channel: str
    attempt: str
    doubtful: bool = False


class LaneClosing(Event):
    """A lane is being closed: nothing is bought any more out of `amount`, which it has left."""

    stored_name: ClassVar[str] = "LaneClosing"
    channel: str
    amount: Money


class LaneClosed(Event):
    """The chain shows what became of a lane: the payee claimed, and the rest came back."""

    stored_name: ClassVar[str] = "LaneClosed"
    channel: str
    claimed: Money
    refunded: Money


class LaneWithdrawn(Event):
    """The payer asked the contract for the rest of a lane; it can be had from `until` on."""

    stored_name: ClassVar[str] = "LaneWithdrawn"
    channel: str
    until: int


# -- records -------------------------------------------------------------------------------------


class Lane(Record):
    """A channel with a payee; amounts in base units of its token.

    `balance` is what the contract has in the channel, as far as is known.  `charged` in all, as far
    as is known; `ceiling` the highest voucher that was signed, `signature` the newest voucher's,
    over `promised`.  `attempt` is what the lane is used for, "" for nothing; `at_most` what it may
    cost.  `stated` is what the server says that it has charged in all, -1 for not asked.
    `doubtful`: what is charged has to be asked first, as after a restore.

    `deposit` units were signed and not seen on the chain yet, with `salt`, `valid_before` and
    `authorization`; `taken`: the server has answered a request that came with it.
    """

    stored_name: ClassVar[str] = "Lane"
    channel: str
    provider: str
    provider_node: str
    payee: str
    lane: int
    config: dict[str, str | int]
    balance: int = 0
    charged: int = 0
    ceiling: int = 0
    promised: int = 0
    signature: str = ""
    attempt: str = ""
    at_most: int = 0
    stated: int = -1
    doubtful: bool = False
    deposit: int = 0
    salt: str = ""
    valid_before: int = 0
    authorization: str = ""
    taken: bool = False
    closing: bool = False
    until: int = 0
    open: bool = True
    used: float = 0.0

    @property
    def key(self) -> str:
        return self.channel

    @property
    def label(self) -> str:
        """How people tell this lane's provider node from the others."""
        return f"{self.provider}/{self.provider_node}" if self.provider_node else self.provider

    @property
    def is_free(self) -> bool:
        """Whether another attempt may use this lane now."""
        return self.open and not self.closing and not self.attempt and not self.doubtful

    @property
    def spendable(self) -> int:
        """What a further voucher may promise beyond what is charged."""
        return self.balance + self.deposit - self.charged


class LaneOfAttempt(Record):
    """The lane over which an attempt is paid."""

    stored_name: ClassVar[str] = "LaneOfAttempt"
    attempt: str
    channel: str

    @property
    def key(self) -> str:
        return self.attempt


# -- folds ---------------------------------------------------------------------------------------


@folds(LaneOpened)
def _fold_lane_opened(event: LaneOpened, stream: str, at: float, records: Records) -> None:
    records.put(Lane(**event.model_dump(), used=at))


@folds(DepositSigned)
def _fold_deposit_signed(event: DepositSigned, stream: str, at: float, records: Records) -> None:
    """Count a deposit as put into the channel from now on: the payee can draw it."""
    lane = existing(records, Lane, event.channel)
    changes = {
        "deposit": event.amount.units,
        "salt": event.salt,
        "valid_before": event.valid_before,
        "authorization": event.signature,
        "taken": False,
    }
    records.put(lane.model_copy(update=changes))
    add_to_total(records, "signed", event.amount)


@folds(DepositEnded)
def _fold_deposit_ended(event: DepositEnded, stream: str, at: float, records: Records) -> None:
    lane = existing(records, Lane, event.channel)
    if not lane.deposit:
        return
    subtract_from_total(records, "signed", event.amount)
    changes = {
        "balance": event.balance,
        "deposit": 0,
        "salt": "",
        "valid_before": 0,
        "authorization": "",
        "taken": False,
    }
    records.put(lane.model_copy(update=changes))


@folds(LanePromised)
def _fold_lane_promised(event: LanePromised, stream: str, at: float, records: Records) -> None:
    lane = existing(records, Lane, event.channel)
    changes = {
        "attempt": event.attempt,
        "at_most": event.at_most.units,
        "promised": event.ceiling,
        "ceiling": max(lane.ceiling, event.ceiling),
        "signature": event.signature,
        "stated": -1,
        "used": at,
    }
    records.put(lane.model_copy(update=changes))
    records.put(LaneOfAttempt(attempt=event.attempt, channel=event.channel))


@folds(LaneStated)
def _fold_lane_stated(event: LaneStated, stream: str, at: float, records: Records) -> None:
    """Take the server's word; on a lane that is used for nothing it is what is charged.

    That may be less than was known, where the server has lost its books: then the next voucher is
    over less, too.
    """
    lane = existing(records, Lane, event.channel)
    changes: dict[str, object] = {
        "stated": event.charged,
        "ceiling": max(lane.ceiling, event.signed),
        "doubtful": False,
    }
    if not lane.attempt:
        changes |= {"charged": event.charged, "stated": -1}
    if not lane.deposit:  # else the balance may have it or not
        changes["balance"] = event.balance
    records.put(lane.model_copy(update=changes))


@folds(LaneCharged)
def _fold_lane_charged(event: LaneCharged, stream: str, at: float, records: Records) -> None:
    lane = existing(records, Lane, event.channel)
    if lane.attempt != event.attempt:
        return
    changes = _unused() | {
        # What the server states may be more: then it went above what the attempt could cost.
        "charged": max(lane.charged + event.charge.units, lane.stated),
        "taken": bool(lane.deposit),
        "used": at,
    }
    records.put(lane.model_copy(update=changes))


@folds(LaneFreed)
def _fold_lane_freed(event: LaneFreed, stream: str, at: float, records: Records) -> None:
    lane = existing(records, Lane, event.channel)
    if lane.attempt != event.attempt:
        return
    changes = _unused() | {"doubtful": event.doubtful}
    if lane.stated >= 0:
        changes["charged"] = lane.stated
    records.put(lane.model_copy(update=changes))


@folds(LaneClosing)
def _fold_lane_closing(event: LaneClosing, stream: str, at: float, records: Records) -> None:
    update(records, Lane, event.channel, closing=True)


@folds(LaneWithdrawn)
def _fold_lane_withdrawn(event: LaneWithdrawn, stream: str, at: float, records: Records) -> None:
    update(records, Lane, event.channel, until=event.until)


@folds(LaneClosed)
def _fold_lane_closed(event: LaneClosed, stream: str, at: float, records: Records) -> None:
    update(records, Lane, event.channel, open=False)


def doubt_open_lanes(records: Records) -> None:
    """Mark every open lane as doubtful, because the state was just restored."""
    for lane in records.every(Lane):
        if lane.open:
            records.put(lane.model_copy(update={"doubtful": True}))


def _unused() -> dict[str, object]:
    return {"attempt": "", "at_most": 0, "stated": -1}
