"""Chain: the wallet's transactions on an EVM chain, prepaid credit, and heads anchored there.

A head is one hash over the newest events of all streams.  It is written on the chain, so that a
restore can tell whether a gateway holds back what was sealed last.
"""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar, Literal

from agentkit.journal.folding import Records, folds, update
from agentkit.journal.subjects.budget import Account, account, add_to_total
from agentkit.market.seams import Event, Record
from agentkit.money import Money

MOST_HEADS = 10
"""Anchored heads that are remembered: a node that lags may still show one before the newest."""

# -- events: transactions ------------------------------------------------------------------------


class TxSigned(Event):
    """A transaction was signed; from here on it may reach the chain.

    `intent` is what it is for: each intent is carried out once.  `call` is the digest of receiver
    and data, `raw` the signed bytes in hex, `cost` the most that gas can cost.

    The same intent is signed again to raise the fees, or with another nonce once a different
    transaction has used the first nonce for good.
    """

    stored_name: ClassVar[str] = "TxSigned"
    intent: str
    call: str
    nonce: int
    transaction: str
    raw: str
    cost: Money


class TxFinal(Event):
    """A transaction is on the chain for good; `cost` is what its gas did cost."""

    stored_name: ClassVar[str] = "TxFinal"
    intent: str
    transaction: str
    block: int
    succeeded: bool
    cost: Money


class CreditFunded(Event):
    """A prepaid account was topped up by a transaction."""

    stored_name: ClassVar[str] = "CreditFunded"
    account: str
    amount: Money
    transaction: str


class PayerBound(Event):
    """A provider of credit took this wallet's address as the one whose transfers it credits."""

    stored_name: ClassVar[str] = "PayerBound"
    account: str
    provider: str
    address: str


class CreditRead(Event):
    """A provider showed the balance of a prepaid account, in whole cents, rounded down.

    `spent` are the units that these books counted as spent there before the provider was asked.
    """

    stored_name: ClassVar[str] = "CreditRead"
    account: str
    cents: int
    spent: int


class CreditSent(Event):
    """A transfer that tops up a prepaid account was signed; from here on it may reach the chain.

    Transfers of one account have numbers.  A number stands for one authorization of the token, so
    at most one transfer of a number ever moves money, however often it is signed.
    """

    stored_name: ClassVar[str] = "CreditSent"
    account: str
    number: int
    amount: Money
    intent: str


class CreditLanded(Event):
    """A signed transfer was found on the chain, brought there by somebody else."""

    stored_name: ClassVar[str] = "CreditLanded"
    account: str
    number: int
    amount: Money
    transaction: str


# -- events: anchored heads ----------------------------------------------------------------------


class HeadChosen(Event):
    """A hash over all streams was chosen to be anchored; from here on it may be on the chain.

    `heads` are number and hash of the newest event of each stream that went on since the hash
    `previous` was chosen, which stands for the other streams.  `salt` is random, so that two
    machines never choose the same hash.
    """

    stored_name: ClassVar[str] = "HeadChosen"
    previous: str
    heads: dict[str, tuple[int, str]]
    salt: str

    @property
    def head(self) -> str:
        """The hash, in hex."""
        heads = sorted([name, *head] for name, head in self.heads.items())
        content = json.dumps([self.previous, self.salt, *heads])
        return hashlib.sha256(b"agentkit/anchor/1 " + content.encode()).hexdigest()


class Restored(Event):
    """The state was rebuilt from Arweave; what came after the last segment is unknown.

    `epoch` counts how often this wallet was restored, `instance` names the new state file.
    `anchor` is the head that was on the chain, if events it stands for were given up.
    """

    stored_name: ClassVar[str] = "Restored"
    events: int
    epoch: int = 0
    instance: str = ""
    anchor: str = ""


# -- records -------------------------------------------------------------------------------------


class EvmTransaction(Record):
    """What became of an intent of the wallet; one that is not `final` must be followed up.

    `nonce`, `transaction`, `raw` and `cost` are those that were signed last; once it is final,
    `transaction` and `cost` are those that were mined.  `earlier` are the transactions that were
    signed before for the same intent: one of them may be mined instead.
    """

    stored_name: ClassVar[str] = "Tx"
    intent: str
    call: str
    nonce: int
    transaction: str
    raw: str
    cost: Money
    earlier: tuple[str, ...] = ()
    final: bool = False
    succeeded: bool = False

    @property
    def transactions(self) -> tuple[str, ...]:
        """All transactions that could carry this intent out, the newest first."""
        return (self.transaction, *self.earlier)

    @property
    def key(self) -> str:
        return self.intent


class Nonce(Record):
    """The nonce of the wallet's next transaction on a chain, as far as this state file knows."""

    stored_name: ClassVar[str] = "Nonce"
    chain: str
    following: int

    @property
    def key(self) -> str:
        return self.chain


class Credited(Record):
    """A top-up that its provider has credited."""

    stored_name: ClassVar[str] = "Credited"
    transaction: str

    @property
    def key(self) -> str:
        return self.transaction


class PayerBinding(Record):
    """The address whose transfers a provider credits to an account."""

    stored_name: ClassVar[str] = "PayerBinding"
    account: str
    provider: str
    address: str

    @property
    def key(self) -> str:
        return f"{self.account}|{self.provider}"


class CreditReading(Record):
    """The balance of a prepaid account that its provider showed last, and our books around it.

    `spent` are the units spent by our books before the provider was asked; `taken` those that the
    payee had taken for certain, and `reserved` those of open attempts, when it had answered.
    """

    stored_name: ClassVar[str] = "CreditReading"
    account: str
    cents: int
    at: float
    spent: int
    taken: int
    reserved: int

    @property
    def key(self) -> str:
        return self.account


class CreditTransfer(Record):
    """A transfer that tops up a prepaid account: `in transit` until the balance there shows it.

    `before` is what the provider showed before it was signed.
    """

    stored_name: ClassVar[str] = "CreditTransfer"
    account: str
    number: int
    amount: Money
    intent: str
    at: float
    before: CreditReading | None = None
    transaction: str = ""
    standing: Literal["signed", "in transit", "credited", "failed"] = "signed"

    @property
    def key(self) -> str:
        return f"{self.account}|{self.number}"


class Anchor(Record):
    """The heads that were chosen to be anchored last, newest first; "" is before the first."""

    stored_name: ClassVar[str] = "Anchor"
    heads: tuple[str, ...]
    at: float

    @property
    def key(self) -> str:
        return "newest"


class AnchoredStream(Record):
    """The number of the newest event of a stream that an anchored head stands for."""

    stored_name: ClassVar[str] = "AnchoredStream"
    stream: str
    seq: int

    @property
    def key(self) -> str:
        return self.stream


class Restoration(Record):
    """The state was rebuilt from Arweave: what came after the last segment may be missing."""

    stored_name: ClassVar[str] = "Restoration"
    events: int
    epoch: int = 0
    instance: str = ""

    @property
    def key(self) -> str:
        return "newest"


# -- folds ---------------------------------------------------------------------------------------


@folds(TxSigned)
def _fold_tx_signed(event: TxSigned, stream: str, at: float, records: Records) -> None:
    """Put the newest transaction of an intent first, and take its nonce."""
    before = records.get(EvmTransaction, event.intent)
    records.put(
        EvmTransaction(
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
    next_nonce = records.get(Nonce, chain)
    following = max(event.nonce + 1, next_nonce.following if next_nonce else 0)
    records.put(Nonce(chain=chain, following=following))


@folds(TxFinal)
def _fold_tx_final(event: TxFinal, stream: str, at: float, records: Records) -> None:
    """Note which transaction of an intent was mined, and what its gas did cost."""
    update(
        records,
        EvmTransaction,
        event.intent,
        final=True,
        transaction=event.transaction,
        succeeded=event.succeeded,
        cost=event.cost,
    )
    add_to_total(records, "gas", event.cost)
    if event.intent.startswith("topup:"):
        _end_transfer(event, records)


def _end_transfer(event: TxFinal, records: Records) -> None:
    """Note that a top-up is on its way to its provider's balance, or that it moved nothing."""
    _, payee, number, *_ = event.intent.split(":")
    transfer = records.get(CreditTransfer, f"{payee}|{number}")
    # Top-ups of earlier versions have no record of their own.
    if transfer and transfer.intent == event.intent:
        standing = "in transit" if event.succeeded else "failed"
        changes = {"transaction": event.transaction, "standing": standing}
        records.put(transfer.model_copy(update=changes))


# -- folds: prepaid credit -----------------------------------------------------------------------


@folds(PayerBound)
def _fold_payer_bound(event: PayerBound, stream: str, at: float, records: Records) -> None:
    records.put(PayerBinding(**event.model_dump()))


@folds(CreditRead)
def _fold_credit_read(event: CreditRead, stream: str, at: float, records: Records) -> None:
    payee = records.get(Account, f"prepaid|{event.account}")
    records.put(
        CreditReading(
            account=event.account,
            cents=event.cents,
            at=at,
            spent=event.spent,
            taken=payee.spent.units - payee.uncertain if payee else 0,
            reserved=payee.reserved.units if payee else 0,
        )
    )


@folds(CreditSent)
def _fold_credit_sent(event: CreditSent, stream: str, at: float, records: Records) -> None:
    """Put a transfer on its way; one of the same number takes the place of the one before."""
    records.put(
        CreditTransfer(
            account=event.account,
            number=event.number,
            amount=event.amount,
            intent=event.intent,
            at=at,
            before=records.get(CreditReading, event.account),
        )
    )


@folds(CreditLanded)
def _fold_credit_landed(event: CreditLanded, stream: str, at: float, records: Records) -> None:
    changes = {"amount": event.amount, "transaction": event.transaction, "standing": "in transit"}
    update(records, CreditTransfer, f"{event.account}|{event.number}", **changes)


@folds(CreditFunded)
def _fold_credit_funded(event: CreditFunded, stream: str, at: float, records: Records) -> None:
    payee = account(records, rail="prepaid", payee=event.account, like=event.amount)
    records.put(payee.model_copy(update={"funded": payee.funded + event.amount}))
    records.put(Credited(transaction=event.transaction))
    for transfer in records.every(CreditTransfer, f"{event.account}|"):
        if transfer.transaction == event.transaction:
            records.put(transfer.model_copy(update={"standing": "credited"}))


# -- folds: anchored heads -----------------------------------------------------------------------


@folds(HeadChosen)
def _fold_head_chosen(event: HeadChosen, stream: str, at: float, records: Records) -> None:
    _put_anchored_head(records, event.head, at)
    for name, (seq, _) in event.heads.items():
        records.put(AnchoredStream(stream=name, seq=seq))


def fold_restored(event: Restored, at: float, records: Records) -> None:
    """Note that the state was restored, and from which head; the rest is in `journal.fold`."""
    records.put(Restoration(**event.model_dump(exclude={"anchor"})))
    if event.anchor:
        _put_anchored_head(records, event.anchor, at)


def _put_anchored_head(records: Records, head: str, at: float) -> None:
    anchor = records.get(Anchor, "newest")
    earlier = anchor.heads if anchor else ("",)
    records.put(Anchor(heads=(head, *earlier)[:MOST_HEADS], at=at))
