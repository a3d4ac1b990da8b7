"""Channel sales: what a provider node charges over channels by x402 `batch-settlement`.

Voucher, charge and answer are one event.  So a payer that lost an answer asks again with the same
voucher and gets the same answer, and no crash leaves a charge without what it was for.
"""

from __future__ import annotations

from typing import ClassVar

from agentkit.journal.folding import Records, existing, folds
from agentkit.market.seams import Event, Record
from agentkit.money import Money

# -- events --------------------------------------------------------------------------------------


class ChannelMirrored(Event):
    """The chain shows a payer's channel so; amounts in base units of its token.

    `config` are the channel's terms as they travel.  `withdrawing` is what the payer has asked
    back, at `withdraw_requested_at` in unix seconds.
    """

    stored_name: ClassVar[str] = "ChannelMirrored"
    channel: str
    config: dict[str, str | int]
    balance: int
    total_claimed: int
    withdrawing: int
    withdraw_requested_at: int
    refund_nonce: int


class RequestCharged(Event):
    """A request was answered and charged, under the voucher that came with it.

    `ceiling` and `signature` are the voucher's; `charge` is what the request came to; `total` what
    the channel is charged in all.  `request` is the digest of what was asked for, `identifier` the
    payer's own name for it, `transaction` the deposit that came with it.  `digest` names the
    answer's body, a blob of the journal.
    """

    stored_name: ClassVar[str] = "RequestCharged"
    channel: str
    ceiling: int
    signature: str
    charge: Money
    total: int
    request: str
    identifier: str = ""
    transaction: str = ""
    status: int = 200
    media_type: str = ""
    digest: str = ""


class ChannelRefundOrdered(Event):
    """A channel's payer asked for `amount` back, and the node signed it under `nonce`.

    `signature` is the payer's voucher over what the channel is charged.
    """

    stored_name: ClassVar[str] = "ChannelRefundOrdered"
    channel: str
    amount: int
    nonce: int
    signature: str


# -- records -------------------------------------------------------------------------------------


class SoldChannel(Record):
    """A channel on which a node is paid: what the chain shows, and what it has charged.

    `charged` in all, under a voucher over `ceiling`.  `refunding` is what a refund gives back that
    the chain does not show yet.  `synced` is when the chain was read, `used` when the payer last
    paid, both in unix seconds.
    """

    stored_name: ClassVar[str] = "SoldChannel"
    channel: str
    config: dict[str, str | int]
    balance: int = 0
    total_claimed: int = 0
    withdrawing: int = 0
    withdraw_requested_at: int = 0
    refund_nonce: int = 0
    charged: int = 0
    ceiling: int = 0
    signature: str = ""
    refunding: int = 0
    synced: float = 0.0
    used: float = 0.0

    @property
    def key(self) -> str:
        return self.channel

    @property
    def payer(self) -> str:
        """The address that put money into the channel."""
        return str(self.config["payer"])

    @property
    def claimable(self) -> int:
        """Up to how much may be claimed in all: what is charged, and is still in the channel."""
        return min(self.charged, self.balance)

    @property
    def unclaimed(self) -> int:
        """What may be claimed and is not claimed on the chain yet."""
        return max(0, self.claimable - self.total_claimed)

    @property
    def spendable(self) -> int:
        """Up to how much may be charged in all, without what is on its way back to the payer."""
        return self.balance - self.withdrawing - self.refunding


class ChannelAnswer(Record):
    """The answer that was charged under a voucher; its key is the channel and the ceiling."""

    stored_name: ClassVar[str] = "ChannelAnswer"
    channel: str
    ceiling: int
    charge: Money
    total: int
    request: str
    identifier: str
    transaction: str
    status: int
    media_type: str
    digest: str

    @property
    def key(self) -> str:
        return answer_key(self.channel, self.ceiling)


class ChannelAnswerName(Record):
    """The answer that goes by a payer's own identifier."""

    stored_name: ClassVar[str] = "ChannelAnswerName"
    payer: str
    identifier: str
    channel: str
    ceiling: int

    @property
    def key(self) -> str:
        return f"{self.payer}|{self.identifier}"


def answer_key(channel: str, ceiling: int) -> str:
    """Return the key of the answer that was charged under a voucher."""
    return f"{channel}|{ceiling:039d}"


# -- folds ---------------------------------------------------------------------------------------


@folds(ChannelMirrored)
def _fold_channel_mirrored(
    event: ChannelMirrored, stream: str, at: float, records: Records
) -> None:
    """Take over what the chain shows; what it has claimed is charged, whatever was lost here."""
    known = records.get(SoldChannel, event.channel)
    fresh = SoldChannel(channel=event.channel, config=event.config, used=at)
    channel = known or fresh
    is_refunded = event.refund_nonce > channel.refund_nonce
    changes = {
        **event.model_dump(exclude={"channel", "config"}),
        "charged": max(channel.charged, event.total_claimed),
        "refunding": 0 if is_refunded else channel.refunding,
        "synced": at,
    }
    records.put(channel.model_copy(update=changes))


@folds(RequestCharged)
def _fold_request_charged(event: RequestCharged, stream: str, at: float, records: Records) -> None:
    channel = existing(records, SoldChannel, event.channel)
    changes = {
        "charged": event.total,
        "ceiling": event.ceiling,
        "signature": event.signature,
        "used": at,
    }
    records.put(channel.model_copy(update=changes))
    records.put(ChannelAnswer(**event.model_dump(exclude={"signature"})))
    if event.identifier:
        name = ChannelAnswerName(
            payer=channel.payer.lower(),
            identifier=event.identifier,
            channel=event.channel,
            ceiling=event.ceiling,
        )
        records.put(name)


def charge_on_delivery(
    records: Records, channel: str, cumulative: int, signature: str, at: float
) -> None:
    """Count what a voucher promises after a delivery as charged, so that it is claimed."""
    sold = records.get(SoldChannel, channel)
    if sold and cumulative > sold.charged:
        changes = {
            "charged": cumulative,
            "ceiling": cumulative,
            "signature": "0x" + signature,
            "used": at,
        }
        records.put(sold.model_copy(update=changes))


@folds(ChannelRefundOrdered)
def _fold_refund_ordered(
    event: ChannelRefundOrdered, stream: str, at: float, records: Records
) -> None:
    """Charge nothing more out of what goes back, from before the chain shows it."""
    channel = existing(records, SoldChannel, event.channel)
    changes = {
        "refunding": event.amount,
        "ceiling": channel.charged,
        "signature": event.signature,
    }
    records.put(channel.model_copy(update=changes))
