"""Channel payments: channels by x402 `batch-settlement` as their payer sees them.

A server serves one request of a channel at a time, so concurrent requests go over several channels
with it, its lanes.  A voucher lets the server claim up to a ceiling; what it really charged is
known when it answers.  So each lane knows what is charged, and the highest ceiling that was ever
signed.
"""

from __future__ import annotations

from typing import ClassVar

from agentkit.journal.folding import Records, existing, folds, update
from agentkit.journal.subjects.budget import account, add_to_total, subtract_from_total
from agentkit.market.seams import Event, Record
from agentkit.money import Money

RAIL = "batch-settlement"
"""The name of the rail, under which payees have their accounts."""

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
    """The chain shows that a lane's deposit was drawn, or that it never can be."""

    stored_name: ClassVar[str] = "DepositEnded"
    channel: str
    amount: Money
    drawn: bool


class LanePromised(Event):
    """A voucher over `ceiling` units in all was signed for an attempt, of at most `at_most`."""

    stored_name: ClassVar[str] = "LanePromised"
    channel: str
    attempt: str
    at_most: Money
    ceiling: int
    signature: str


class LaneStated(Event):
    """The server says, beside our own voucher, that it has charged a lane so many units in all."""

    stored_name: ClassVar[str] = "LaneStated"
    channel: str
    charged: int


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

    `balance` is what was deposited.  `charged` in all, as far as is known; `ceiling` the highest
    voucher that was signed, `signature` the newest voucher's, over `promised`.  `attempt` is what
    the lane is used for, "" for nothing; `at_most` what it may cost.  `stated` is what the server
    says that it has charged in all, -1 for not asked.  `doubtful`: what is charged has to be asked
    first, as after a restore.

    `deposit` units were signed and not seen on the chain yet, with `salt`, `valid_before` and
    `authorization`; `taken`: the server has answered a request that came with it.  `deposits`
    counts them, so that each has a salt of its own.
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
    deposits: int = 0
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
    """Count a deposit as put with its payee from now on: the payee can draw it."""
    lane = existing(records, Lane, event.channel)
    changes = {
        "deposit": event.amount.units,
        "salt": event.salt,
        "valid_before": event.valid_before,
        "authorization": event.signature,
        "taken": False,
        "deposits": lane.deposits + 1,
    }
    records.put(lane.model_copy(update=changes))
    payee = account(records, rail=RAIL, payee=lane.payee, like=event.amount)
    records.put(payee.model_copy(update={"funded": payee.funded + event.amount}))
    add_to_total(records, "signed", event.amount)


@folds(DepositEnded)
def _fold_deposit_ended(event: DepositEnded, stream: str, at: float, records: Records) -> None:
    lane = existing(records, Lane, event.channel)
    if not lane.deposit:
        return
    subtract_from_total(records, "signed", event.amount)
    if not event.drawn:
        _take_back(records, lane, event.amount)
    changes = {
        "balance": lane.balance + (lane.deposit if event.drawn else 0),
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
    """Take the server's word; on a lane that is used for nothing it is what is charged."""
    lane = existing(records, Lane, event.channel)
    changes: dict[str, object] = {"stated": event.charged, "doubtful": False}
    if not lane.attempt:
        changes |= {"charged": max(lane.charged, event.charged), "stated": -1}
    records.put(lane.model_copy(update=changes))


@folds(LaneCharged)
def _fold_lane_charged(event: LaneCharged, stream: str, at: float, records: Records) -> None:
    lane = existing(records, Lane, event.channel)
    if lane.attempt != event.attempt:
        return
    changes = _unused() | {
        "charged": lane.charged + event.charge.units,
        "taken": bool(lane.deposit),
        "used": at,
    }
    records.put(lane.model_copy(update=changes))


@folds(LaneFreed)
def _fold_lane_freed(event: LaneFreed, stream: str, at: float, records: Records) -> None:
    lane = existing(records, Lane, event.channel)
    if lane.attempt == event.attempt:
        records.put(lane.model_copy(update=_unused() | {"doubtful": event.doubtful}))


@folds(LaneClosing)
def _fold_lane_closing(event: LaneClosing, stream: str, at: float, records: Records) -> None:
    """Stop buying over a lane, and take what is not charged out of its payee's account."""
    lane = existing(records, Lane, event.channel)
    if lane.closing:
        return
    records.put(lane.model_copy(update={"closing": True}))
    _take_back(records, lane, event.amount)


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


def _take_back(records: Records, lane: Lane, amount: Money) -> None:
    """Take an amount out of what a lane's payee was funded with."""
    payee = account(records, rail=RAIL, payee=lane.payee, like=amount)
    left = Money(max(0, payee.funded.units - amount.units), amount.asset)
    records.put(payee.model_copy(update={"funded": left}))
