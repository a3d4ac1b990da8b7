"""The closed set of events a state file can hold.

Three sorts of stream: one per run, `wallet` for money and what the agent knows, `node` in the
state file of a provider node.  A record is folded from one sort of stream only, so that streams
may be restored in any order.  A field that an old reader cannot do without means a new VERSION.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from agentkit.artifacts import KINDS, Artifact
from agentkit.market.attempt import Attempt, Evidence, JobState
from agentkit.market.plan import Plan
from agentkit.market.receipt import Receipt, Standing
from agentkit.market.seams import Event
from agentkit.market.value import Value
from agentkit.money import Money

VERSION = 2
"""Version of the set, written with every event; a newer one is refused at read.

It rises whenever an event, a field or a default of the set changes (CONTRIBUTING.md), and
`journal.upgrades` says how what earlier versions wrote is read.  Version 1: everything up to and
including the head anchor, while the set still grew.
"""

WALLET = "wallet"
NODE = "node"

Knowing = Literal["notes", "fact"]
"""What of the agent's knowledge goes by a name: a topic's notes, or a fact."""

TINY_BYTES = 512
"""Text up to this size stands in the event itself: one page less to write for each node."""


class Produced(Value):
    """An artifact as events name it; `text` is its bytes, where they are few and text.

    No `media_type` is the kind's own.
    """

    kind: str
    digest: str
    size: int
    media_type: str = ""
    locators: tuple[str, ...] = ()
    text: str | None = None

    @classmethod
    def of(cls, artifact: Artifact) -> Produced:
        fields: dict[str, Any] = {}
        if artifact.media_type != artifact.default_media_type:
            fields["media_type"] = artifact.media_type
        if artifact.locators:
            fields["locators"] = artifact.locators
        if artifact.size <= TINY_BYTES:
            fields["text"] = _text_of(artifact.read())
        return cls(kind=artifact.kind, digest=artifact.digest, size=artifact.size, **fields)

    def artifact(self) -> Artifact:
        """Return the artifact, its bytes at hand only if they stand here; raises StateCorrupt."""
        kind = KINDS[self.kind]
        bare = kind(self.digest, self.size, self.media_type or kind.default_media_type)
        content = None if self.text is None else self.text.encode()
        return bare.located(*self.locators, content=content)


def _text_of(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


# -- one stream per run --------------------------------------------------------------------------


class RunStarted(Event):
    """A run of a plan began.  `code`: sha256 of the files of its functions, which may run again."""

    plan: Plan
    code: tuple[str, ...] = ()


class Earlier(Event):
    """What a run had come to by events that are not here: the JSON of its state.

    It stands first where a run is read that was restored from a snapshot, and is never written.
    """

    state: str


class RunResumed(Event):
    """Another process went on with the run, under a new plan if one is given.

    `code`: sha256 of files that may run from now on, besides those of its start.
    """

    plan: Plan | None = None
    code: tuple[str, ...] = ()


class AttemptOpened(Event):
    """The next request to a provider carries this attempt's key."""

    attempt: Attempt


class AttemptClosed(Event):
    """An attempt came to nothing.

    `unpaid`: known not to cost anything.  `uncertain`: its outcome cannot be found out.
    `refused`: what was delivered and failed verification, under the digest `result`, with what
    its provider signed.
    """

    attempt: str
    purchase: str
    node: str
    item: int | None = None
    outcome: Literal["unpaid", "uncertain"]
    reason: str
    receipt: Receipt | None = None
    provider: str = ""
    refused: bool = False
    result: str = ""
    evidence: Evidence = Evidence()


class ItemDone(Event):
    """One item of a mapped node was delivered, verified and settled; else as `NodeDone`."""

    node: str
    item: int
    outputs: tuple[Produced, ...]
    receipt: Receipt | None = None
    others: tuple[Receipt, ...] = ()
    task: str = ""


class ItemSkipped(Event):
    """One item of a mapped node failed for good and is left out (`on_error="skip"`)."""

    node: str
    item: int
    why: str


class NodeDone(Event):
    """A node has its outputs.

    `others`: receipts of further replicas that agreed.  `task`: the digest under which later
    runs may take the outputs again.
    """

    node: str
    outputs: tuple[Produced, ...]
    receipt: Receipt | None = None
    others: tuple[Receipt, ...] = ()
    task: str = ""


class NodeSkipped(Event):
    """A node is not done: a condition did not hold, or a node it reads was skipped."""

    node: str
    why: str


class NodesEnded(Event):
    """Nodes on this machine that ended in the same moment: one row for all of them.

    Readers get the events inside, see `Event.parts`.
    """

    done: tuple[NodeDone, ...] = ()
    skipped: tuple[NodeSkipped, ...] = ()

    def parts(self) -> tuple[Event, ...]:
        return (*self.done, *self.skipped)


class NodeFailed(Event):
    """A node cannot be done."""

    node: str
    error: str
    reason: str


class Approved(Event):
    """Somebody agreed that a node may cost up to `amount`; `by` says how they were asked."""

    node: str
    amount: Money
    by: str


class BudgetRaised(Event):
    """The run may come to `budget` in all."""

    budget: Money


class RunPaused(Event):
    """The run stopped where it can be resumed, by `command` where a plain resume is not enough.

    `hint`: what has to be done first, if anything.  `mend`: the node that a person has to mend,
    because its function raised.
    """

    why: str
    uncertain: bool = False
    command: str = ""
    hint: str = ""
    mend: str = ""


class RunFinished(Event):
    """The run ended for good."""

    outcome: Literal["done", "failed", "cancelled"]


# -- the wallet's stream -------------------------------------------------------------------------


class Held(Event):
    """Money was set aside for a run."""

    run: str
    amount: Money


class Reserved(Event):
    """An attempt's at most was taken out of its run's hold and its rail's account."""

    attempt: str
    run: str
    rail: str
    account: str
    amount: Money
    provider: str


class Unreserved(Event):
    """A reservation went back: the attempt will never be paid."""

    attempt: str


class Spent(Event):
    """A reservation became `amount` spent, the rest of it went back."""

    attempt: str
    provider: str
    amount: Money
    standing: Standing


class HoldReleased(Event):
    """A run's hold ended."""

    run: str


class HoldReduced(Event):
    """A run that waits for a person gave `amount` of its hold back: it needs that no more."""

    run: str
    amount: Money


class TxSigned(Event):
    """A transaction's bytes exist; from here on it may reach the chain.

    `intent` is why, once; `call` the digest of receiver and data; `raw` the signed bytes in hex;
    `cost` the most gas can come to.  Again for the same intent: with higher fees, or with another
    nonce once somebody else has used the first for good.
    """

    intent: str
    call: str
    nonce: int
    transaction: str
    raw: str
    cost: Money


class TxFinal(Event):
    """A transaction is on the chain for good; `cost` is what its gas came to."""

    intent: str
    transaction: str
    block: int
    succeeded: bool
    cost: Money


class ChannelOpened(Event):
    """A payment channel was chosen: its terms, which hash to `channel`."""

    channel: str
    provider: str
    provider_node: str
    payer: str
    payee: str
    token: str
    close_delay: int
    salt: str


class ChannelFunded(Event):
    """A channel's deposit grew to `deposited`."""

    channel: str
    amount: Money
    deposited: Money


class VoucherSigned(Event):
    """A cumulative promise on a channel; the newest covers all before it.

    `leaf` is what the attempt's delivery adds to the tree whose root the promise names.
    """

    channel: str
    attempt: str
    cumulative: Money
    tasks: int
    signature: str
    leaf: str


class ChannelClosing(Event):
    """A channel is being closed: no attempt is open on it, and none will be opened."""

    channel: str


class ChannelClosed(Event):
    """A channel ended: what the provider took and what came back."""

    channel: str
    claimed: Money
    refunded: Money


class ChannelCloseRequested(Event):
    """Its payer asked the contract for the rest of a channel; anybody may finish at `closes_at`."""

    channel: str
    closes_at: int


class EscrowQuoted(Event):
    """A payee offered to do an attempt for money in escrow: its signed quote, whose id is `id`."""

    attempt: str
    id: str
    provider: str
    provider_node: str
    payee: str
    price: Money
    job: dict[str, Any]


class EscrowOpened(Event):
    """An attempt's price is locked in the contract."""

    attempt: str
    amount: Money


class EscrowAccepted(Event):
    """We gave our word that `amount` of what is locked is the payee's, for this result."""

    attempt: str
    amount: Money
    result: str
    signature: str


class EscrowClosed(Event):
    """What was locked is not any more: what the payee got, and what came back."""

    attempt: str
    paid: Money
    refunded: Money


class CreditFunded(Event):
    """A prepaid account was topped up on chain."""

    account: str
    amount: Money
    transaction: str


class VoucherFound(Event):
    """A payee showed our newest voucher, after a restore that may lack it.

    `delivered`: what it says it delivered on the channel in all; `attempts`: those our books lack.
    """

    channel: str
    cumulative: Money
    tasks: int
    signature: str
    root: str
    delivered: Money
    attempts: tuple[str, ...] = ()


class VoucherMatched(Event):
    """An attempt that a restored run took up again is one that a found voucher had paid."""

    channel: str
    attempt: str
    amount: Money


class Restored(Event):
    """The state was rebuilt from Arweave; what came after the last segment is unknown.

    A new life of this wallet began: `epoch` counts them, `instance` names its state file.
    `anchor`: the head that was on the chain, and stood for steps that were given up.
    """

    events: int
    epoch: int = 0
    instance: str = ""
    anchor: str = ""


class HeadChosen(Event):
    """A hash over all streams was chosen to be anchored; from here on it may be on the chain.

    `heads`: number and hash of the newest event of each stream that went on since `previous` was
    chosen, which stands for the others.  `salt`: no two machines choose the same.
    """

    previous: str
    heads: dict[str, tuple[int, str]]
    salt: str

    @property
    def head(self) -> str:
        """The hash, in hex."""
        told = [self.previous, self.salt, *sorted([name, *at] for name, at in self.heads.items())]
        return hashlib.sha256(b"agentkit/anchor/1 " + json.dumps(told).encode()).hexdigest()


class NoteAdded(Event):
    """The agent wrote something down under a topic."""

    topic: str
    text: str


class FactLearned(Event):
    """The agent learned that `key` is `value` (JSON), and what that came from.

    `attempt` is the one whose receipt says what it cost.
    """

    key: str
    value: Any
    run: str = ""
    node: str = ""
    price: Money | None = None
    attempt: str = ""


class Forgotten(Event):
    """A topic's notes, or a fact and its history, are not known any more.

    A tombstone: what was sealed before stays sealed.
    """

    what: Knowing
    name: str


class RetentionSet(Event):
    """Of a topic's notes, or a fact's values, the newest are kept, or those not too old.

    0 is no limit.
    """

    what: Knowing
    name: str
    newest: int = 0
    seconds: float = 0.0


class Shelved(Event):
    """Entries of a shelf were written: plain JSON by name."""

    shelf: str
    entries: dict[str, Any]


class Unshelved(Event):
    """Entries of a shelf are gone, by name or by how their names begin; a tombstone."""

    shelf: str
    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


class CancelAsked(Event):
    """Some process asked the owner of a run to cancel it."""

    run: str


class Extra(Event):
    """A plug-in's own record."""

    owner: str
    version: int
    json_text: str


class AuthorizationSigned(Event):
    """An attempt's payment exists; from here on its payee may draw it, until `valid_before`.

    An EIP-3009 authorization of this wallet over `amount`; `nonce` and `signature` in hex.
    """

    attempt: str
    provider: str
    payee: str
    amount: Money
    valid_before: int
    nonce: str
    signature: str


class AuthorizationEnded(Event):
    """The chain says what became of an authorization: its payee drew it, or never can."""

    attempt: str
    outcome: Literal["used", "expired"]


# -- the stream of a provider node ---------------------------------------------------------------


class UploadSigned(Event):
    """A layer-1 transaction of Arweave exists; from here on its fee may be paid, in AR."""

    tx: str
    fee: Money


class UploadDropped(Event):
    """A layer-1 transaction can never be mined any more; its fee was not paid."""

    tx: str
    fee: Money


class JobTaken(Event):
    """An attempt was accepted; it is paid on `channel`, or by the job in escrow of that id."""

    attempt: str
    task: str
    payer: str
    channel: str
    at_most: Money
    escrow: dict[str, Any] = {}


class JobStarted(Event):
    """Work on an attempt began: the execution log."""

    attempt: str


class JobEnded(Event):
    """Work on an attempt ended; `outputs` and `price` when it was done.

    `fault`: as in `market.attempt.JobStatus`.
    """

    attempt: str
    state: JobState
    reason: str = ""
    fault: str = ""
    outputs: tuple[Produced, ...] = ()
    usage: dict[str, int] = {}
    price: Money | None = None
    signature: str = ""
    model: str = ""


class VoucherTaken(Event):
    """A payer's voucher, better than the one before, was checked and stored."""

    channel: str
    payer: str
    token: str
    close_delay: int
    salt: str
    deposited: Money
    cumulative: Money
    tasks: int
    root: str
    signature: str


class CloseSeen(Event):
    """A payer has asked the contract for the rest of its channel: no more is done for it."""

    channel: str


class EscrowEarned(Event):
    """A payer gave its word for what was delivered: `accept` is its signature."""

    attempt: str
    job: dict[str, Any]
    pay: Money
    result: str
    accept: str


class EscrowGivenBack(Event):
    """The node gave its word to take nothing from job `id`, and will do no more for it."""

    attempt: str
    id: str


class EscrowSubmitted(Event):
    """The node told the contract that it delivered; `due` is how long the payer may judge."""

    attempt: str
    due: int


class EscrowSettled(Event):
    """What was locked for an attempt came to its end on the chain."""

    attempt: str
    paid: Money


class ChannelSettled(Event):
    """The node claimed its best voucher and let the rest go back."""

    channel: str
    claimed: Money


class PaymentTaken(Event):
    """A payment over x402 came with a request, and is about to be settled.

    `payment` is payer and nonce of its authorization, `identifier` the payer's own name for it,
    `request` the digest of what it pays for, `settlement` this server's key at the facilitator.
    """

    payment: str
    identifier: str
    request: str
    settlement: str


class PaymentSettled(Event):
    """The chain shows that a payment arrived, in `transaction`."""

    payment: str
    transaction: str


class PaymentAnswered(Event):
    """What was paid for was answered; `digest` names the body, which is kept beside the journal."""

    payment: str
    status: int
    media_type: str
    digest: str


EVENTS: dict[str, type[Event]] = {
    event.__name__: event
    for event in (
        RunStarted,
        RunResumed,
        AttemptOpened,
        AttemptClosed,
        ItemDone,
        ItemSkipped,
        NodeDone,
        NodeSkipped,
        NodesEnded,
        NodeFailed,
        Approved,
        BudgetRaised,
        RunPaused,
        RunFinished,
        Held,
        Reserved,
        Unreserved,
        Spent,
        HoldReleased,
        HoldReduced,
        TxSigned,
        TxFinal,
        ChannelOpened,
        ChannelFunded,
        VoucherSigned,
        ChannelClosed,
        ChannelClosing,
        ChannelCloseRequested,
        EscrowQuoted,
        EscrowOpened,
        EscrowAccepted,
        EscrowClosed,
        CreditFunded,
        VoucherFound,
        VoucherMatched,
        Restored,
        HeadChosen,
        NoteAdded,
        FactLearned,
        Forgotten,
        RetentionSet,
        Shelved,
        Unshelved,
        CancelAsked,
        Extra,
        AuthorizationSigned,
        AuthorizationEnded,
        UploadSigned,
        UploadDropped,
        JobTaken,
        JobStarted,
        JobEnded,
        VoucherTaken,
        CloseSeen,
        EscrowEarned,
        EscrowGivenBack,
        EscrowSubmitted,
        EscrowSettled,
        ChannelSettled,
        PaymentTaken,
        PaymentSettled,
        PaymentAnswered,
    )
}
