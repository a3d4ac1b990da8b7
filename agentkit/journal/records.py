"""The rows of state that events fold into, each found by its key."""

from __future__ import annotations

from typing import Any, Literal

from agentkit.journal.events import Knowing, Produced
from agentkit.market.attempt import JobState
from agentkit.market.receipt import Standing
from agentkit.market.seams import Record
from agentkit.money import Money


class Run(Record):
    """What is known of a run without reading it."""

    run: str
    graph: str
    started: float
    state: Literal["running", "paused", "done", "failed", "cancelled"] = "running"
    why: str = ""
    uncertain: bool = False

    @property
    def key(self) -> str:
        return self.run


class Reputation(Record):
    """How a provider node has done by this agent: attempts delivered, and refused as bad."""

    provider: str
    delivered: int = 0
    refused: int = 0

    @property
    def key(self) -> str:
        return self.provider

    @property
    def share(self) -> float:
        """The share that delivered what was asked; 1 while nothing was refused."""
        return (self.delivered + 1) / (self.delivered + 1 + self.refused)


class Reusable(Record):
    """What a task came to, for nodes with `cache=True`: the same task again is not bought."""

    task: str
    outputs: tuple[Produced, ...]

    @property
    def key(self) -> str:
        return self.task


class Hold(Record):
    """Money set aside for a run: what is left of it, and how much of that attempts may take.

    `released`: the run has ended, and what is left are reservations that may still be drawn.
    """

    run: str
    left: Money
    reserved: Money
    spent: Money
    released: bool = False

    @property
    def key(self) -> str:
        return self.run


class Reservation(Record):
    """An attempt's at most, taken out of a hold and an account; `spent` once it is settled."""

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
    """What was spent in a scope: `ever`, `day:2026-01-31`, `provider:native`, `gas`.

    Or may be yet: `held` for runs, `open:native` reserved with a provider, `signed` away and not
    drawn.
    """

    scope: str
    amount: Money

    @property
    def key(self) -> str:
        return f"{self.scope}|{self.amount.asset.id}"


class Pace(Record):
    """How many tasks were bought in a minute of the clock, counted from 1970; only the newest."""

    minute: int
    bought: int

    @property
    def key(self) -> str:
        return "newest"


class Account(Record):
    """Where a rail stands with one payee: put in, promised or debited, and spoken for."""

    rail: str
    account: str
    funded: Money
    spent: Money
    reserved: Money

    @property
    def key(self) -> str:
        return f"{self.rail}|{self.account}"

    @property
    def free(self) -> int:
        """Units that a further attempt may reserve; negative when others ran over."""
        return self.funded.units - self.spent.units - self.reserved.units


class Channel(Record):
    """A payment channel as its payer sees it; hex ids, `voucher` the newest signature.

    `doubtful`: restored from Arweave, so the payee may hold a newer voucher than we know.
    `peaks` and `leaves`: the tree over what was paid on it, see `market.tree`; `root` is the one
    in `voucher`, `used` when that was signed.  `closing`: nothing more is bought on it; `closes_at`
    is when its rest may be taken without the payee, 0 while nobody asked for it.

    Once the payee has shown its newest voucher: `unexplained` is what that promised beyond our
    books, since the day `found_on`; `old` are the attempts it had delivered that our books lack,
    `owed` what it had not been paid for them.
    """

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

    @property
    def key(self) -> str:
        return self.channel

    @property
    def label(self) -> str:
        """How people tell this channel's provider node from the others."""
        return f"{self.provider}/{self.provider_node}" if self.provider_node else self.provider


class CurrentChannel(Record):
    """The open channel with a payee."""

    payee: str
    channel: str

    @property
    def key(self) -> str:
        return self.payee


class Escrow(Record):
    """An attempt's price in escrow, as its payer sees it; `at` is when it was opened.

    `accept`: our signed word that `paid` units of it are the payee's, for the result `result`.
    """

    attempt: str
    id: str
    provider: str
    provider_node: str
    payee: str
    price: Money
    job: dict[str, Any]
    state: Literal["quoted", "open", "accepted", "closed"] = "quoted"
    paid: int = 0
    result: str = ""
    accept: str = ""
    at: float = 0.0

    @property
    def key(self) -> str:
        return self.attempt

    @property
    def label(self) -> str:
        """How people tell this job's provider node from the others."""
        return f"{self.provider}/{self.provider_node}" if self.provider_node else self.provider


class EarnedEscrow(Record):
    """An attempt that is paid out of escrow, as the provider node sees it.

    `accept`: the payer's signed word for `pay`; `due`: how long it may judge what was submitted.
    """

    attempt: str
    job: dict[str, Any] = {}
    pay: Money | None = None
    result: str = ""
    accept: str = ""
    due: int = 0
    settled: bool = False

    @property
    def key(self) -> str:
        return self.attempt


class GivenBack(Record):
    """A job in escrow from which the provider node has promised to take nothing."""

    id: str

    @property
    def key(self) -> str:
        return self.id


class Tx(Record):
    """An intent of the wallet to have one transaction; not `final` means to look after it.

    `nonce`, `transaction`, `raw` and `cost` are of what was signed last, `transaction` and `cost`
    of what was mined once it is final; `earlier` what was signed before and may be mined instead.
    """

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
    """The number of the wallet's next transaction on a chain, as far as we know."""

    chain: str
    following: int

    @property
    def key(self) -> str:
        return self.chain


class Credited(Record):
    """A top-up that its provider has acknowledged."""

    transaction: str

    @property
    def key(self) -> str:
        return self.transaction


class CancelRequest(Record):
    """A run that some process asked to be cancelled."""

    run: str

    @property
    def key(self) -> str:
        return self.run


class Restoration(Record):
    """The state was rebuilt from Arweave: what came after the last segment may be missing."""

    events: int
    epoch: int = 0
    instance: str = ""

    @property
    def key(self) -> str:
        return "newest"


class Anchor(Record):
    """The heads that were chosen to be anchored last, the newest first; "" before the first."""

    heads: tuple[str, ...]
    at: float

    @property
    def key(self) -> str:
        return "newest"


class AnchoredStream(Record):
    """How far a stream had come when a head was last chosen that stands for it."""

    stream: str
    seq: int

    @property
    def key(self) -> str:
        return self.stream


class Note(Record):
    """One thing the agent wrote down; `number` counts within the topic."""

    topic: str
    number: int
    text: str
    at: float

    @property
    def key(self) -> str:
        return f"{self.topic}|{self.number:09d}"


class NoteCount(Record):
    """How many notes a topic ever had; those before number `first` are not kept."""

    topic: str
    count: int = 0
    first: int = 1

    @property
    def key(self) -> str:
        return self.topic


class Fact(Record):
    """One value (JSON) of a fact, and what it came from; `number` counts its values."""

    name: str
    number: int
    value: Any
    at: float
    run: str = ""
    node: str = ""
    price: Money | None = None
    attempt: str = ""

    @property
    def key(self) -> str:
        return f"{self.name}|{self.number:09d}"


class FactCount(Record):
    """How many values a fact ever had; those before number `first` are not kept."""

    name: str
    count: int = 0
    first: int = 1

    @property
    def key(self) -> str:
        return self.name


class Retention(Record):
    """How many notes of a topic, or values of a fact, are kept, and for how long; 0: no limit."""

    what: Knowing
    name: str
    newest: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.what}|{self.name}"

    def is_over(self, at: float, now: float) -> bool:
        """Whether what was written at `at` is too old."""
        return bool(self.seconds) and at < now - self.seconds


class Entry(Record):
    """Plain JSON on a shelf, by its name there."""

    shelf: str
    name: str
    value: Any
    at: float

    @property
    def key(self) -> str:
        return f"{self.shelf}|{self.name}"


class Authorization(Record):
    """An attempt's payment over x402; without an outcome its payee may still draw it."""

    attempt: str
    provider: str
    payee: str
    amount: Money
    valid_before: int
    nonce: str
    signature: str
    outcome: Literal["", "used", "expired"] = ""

    @property
    def key(self) -> str:
        return self.attempt


class Outstanding(Record):
    """An attempt whose authorization has no outcome yet."""

    attempt: str

    @property
    def key(self) -> str:
        return self.attempt


class Job(Record):
    """An attempt as the provider node sees it."""

    attempt: str
    task: str
    payer: str
    channel: str
    at_most: Money
    escrow: dict[str, Any] = {}
    state: JobState = "queued"
    reason: str = ""
    fault: str = ""
    executions: int = 0
    outputs: tuple[Produced, ...] = ()
    usage: dict[str, int] = {}
    price: Money | None = None
    signature: str = ""
    model: str = ""

    @property
    def key(self) -> str:
        return self.attempt


class BookedChannel(Record):
    """A channel as the provider node sees it: best voucher, and what it delivered on it.

    `working` is what tasks that are not finished can come to; `closing`: its payer wants the rest
    back.
    """

    channel: str
    payer: str
    token: str = ""
    close_delay: int = 0
    salt: str = ""
    deposited: int = 0
    cumulative: int = 0
    tasks: int = 0
    root: str = ""
    signature: str = ""
    delivered: int = 0
    working: int = 0
    closing: bool = False
    settled: bool = False

    @property
    def key(self) -> str:
        return self.channel


class PaidRequest(Record):
    """A request that came with a payment over x402: how far it is, and what was answered."""

    payment: str
    identifier: str
    request: str
    settlement: str
    transaction: str = ""
    status: int = 0
    media_type: str = ""
    digest: str = ""

    @property
    def key(self) -> str:
        return self.payment


class PaymentName(Record):
    """Which payment a payer's own name stands for."""

    identifier: str
    payment: str

    @property
    def key(self) -> str:
        return self.identifier


RECORDS: dict[str, type[Record]] = {
    record.__name__: record
    for record in (
        Run,
        Reputation,
        Reusable,
        Hold,
        Reservation,
        Total,
        Pace,
        Account,
        Channel,
        CurrentChannel,
        Escrow,
        EarnedEscrow,
        GivenBack,
        Tx,
        Nonce,
        Credited,
        CancelRequest,
        Restoration,
        Anchor,
        AnchoredStream,
        Note,
        NoteCount,
        Fact,
        FactCount,
        Retention,
        Entry,
        Job,
        BookedChannel,
        Authorization,
        Outstanding,
        PaidRequest,
        PaymentName,
    )
}
