"""Chain: the wallet's transactions on an EVM chain, prepaid credit, and heads anchored there.

A head is one hash over the newest events of all streams.  It is written on the chain, so that a
restore can tell whether a gateway holds back what was sealed last.
"""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar

from agentkit.journal.folding import Records, folds, update
from agentkit.journal.subjects.budget import account, add_to_total
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
    """A top-up that its provider has acknowledged."""

    stored_name: ClassVar[str] = "Credited"
    transaction: str

    @property
    def key(self) -> str:
        return self.transaction


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


@folds(CreditFunded)
def _fold_credit_funded(event: CreditFunded, stream: str, at: float, records: Records) -> None:
    payee = account(records, rail="prepaid", payee=event.account, like=event.amount)
    records.put(payee.model_copy(update={"funded": payee.funded + event.amount}))
    records.put(Credited(transaction=event.transaction))


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
