"""The seams of the house, as Protocols: frozen values in and out, our errors only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from agentkit.artifacts import Artifact
from agentkit.market.attempt import Attempt, Evidence, JobStatus, Message, Payment, Result
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt, Standing
from agentkit.market.task import Task, TaskSpec
from agentkit.market.value import Value
from agentkit.money import Money


class Event(Value):
    """Something that happened; the closed set of them stands in `journal.events`.

    `stored_name` is what a kind of event is called on disk, on Arweave and in `run --json`.  It
    never changes: a class may be renamed, its stored name may not.
    """

    stored_name: ClassVar[str]

    def parts(self) -> tuple[Event, ...]:
        """Return the events that readers see: this one, or those that were written as one."""
        return (self,)


class Record(Value):
    """A row of state that events fold into, found by `key`; the set stands in `journal.records`.

    `stored_name` is what a kind of record is called on disk and in snapshots.  It never changes.
    """

    stored_name: ClassVar[str]

    @property
    def key(self) -> str:
        """What this record is found by, among those of its kind."""
        raise TypeError(f"{type(self).__name__} has no key")


R = TypeVar("R", bound=Record)


class Transaction(Protocol):
    """The state file inside one transaction: read records, append events, nothing else.

    No network and no await in here; an exception undoes everything this work did.
    """

    @property
    def now(self) -> float:
        """The time, in unix seconds, that events of this transaction carry."""

    def append(self, stream: str, event: Event) -> int:
        """Write an event, fold it, and return its number in the stream."""

    def get(self, record: type[R], key: str) -> R | None:
        """Return the record with this key, None if there is none; raises JournalDamaged."""

    def every(self, record: type[R], prefix: str = "") -> list[R]:
        """Return the records whose key starts with `prefix`, in the order of their keys."""

    def put_blob(self, data: bytes) -> str:
        """Store bytes beside the events under their sha256, and return it."""

    def get_blob(self, digest: str) -> bytes | None:
        """Return stored bytes, None if there are none; raises JournalDamaged if they changed."""


class Ledger(Protocol):
    """The budget: money set aside in our own books, and what was spent.

    `hold` and `reserve` raise OverBudget, naming the limit; `reserve` also NotAllowed (the
    provider is not listed), `spend` too (more than the at most); the others raise nothing in good
    use.
    """

    def hold(self, tx: Transaction, run: str, amount: Money, budget: Money | None) -> None:
        """Set `amount` more aside for a run, against every limit."""

    def reserve(self, tx: Transaction, attempt: Attempt) -> None:
        """Take an attempt's at most out of what the hold has left."""

    def is_reserved(self, tx: Transaction, attempt: Attempt) -> bool:
        """Whether an attempt's at most is set aside and not spent yet."""

    def spend(self, tx: Transaction, attempt: Attempt, amount: Money, standing: Standing) -> None:
        """Turn an attempt's reservation into `amount` spent."""

    def unreserve(self, tx: Transaction, attempt: Attempt) -> None:
        """Give an attempt's reservation back to the hold: it will never be paid."""

    def reduce(self, tx: Transaction, run: str, needed: int) -> None:
        """Give back what a run's hold has beyond `needed` units; what is reserved stays."""

    def release(self, tx: Transaction, run: str) -> None:
        """End a run's hold."""

    def left(self, tx: Transaction, run: str) -> Money | None:
        """Return what a run's hold can still reserve, None without a hold."""


class ProviderInfo(Value):
    """What a provider says of itself; `label` marks a stand-in as one."""

    name: str
    adapter: str
    finds: bool
    up: bool = True
    label: str = ""
    url: str = ""
    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    detail: dict[str, Any] = {}


class Provider(Protocol):
    """A network or pool that does tasks.

    Nothing it sends is trusted.  Besides the errors listed, every method may raise Unavailable,
    RateLimited and ProtocolBroken; an error with `unknown` set says that the request may have
    been acted on.
    """

    @property
    def name(self) -> str: ...

    async def describe(self) -> ProviderInfo: ...

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        """Return offers for a spec; raises Refused with the reason when it cannot be done."""

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        """Hand a task over under `attempt.id`; the same attempt again is the same job.

        Raises Refused, OfferExpired (also when asked for other payment terms).
        """

    async def find(self, attempt: Attempt) -> JobStatus | None:
        """Return what became of an attempt, None when it never arrived.

        Where the payment goes with the request, None also means that handing the same attempt
        over again is how to find it.  Raises ProtocolBroken when this provider cannot find
        (`Offer.finds` is false).
        """

    async def status(self, attempt: Attempt) -> JobStatus:
        """Return the state of a submitted attempt; raises LeaseLost when it is gone."""

    async def result(self, attempt: Attempt) -> Result:
        """Wait for and return the result; raises LeaseLost, Refused (the job failed)."""

    async def cancel(self, attempt: Attempt) -> None:
        """Stop an attempt; one that is not there is no error."""

    async def carry(self, message: Message) -> Message:
        """Bring a rail's message to the provider node and return its answer; raises Refused."""

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Wanted:
    """What money is put in place for: an attempt, whose at most may be less than the need.

    `reserve` sets the at most aside; a rail that locks money for this attempt alone calls it in
    the transaction that signs for it, so that nothing is locked that was not set aside.
    """

    attempt: Attempt
    reserve: Callable[[Transaction], None]


class Rail(Protocol):
    """A way of paying.  It never opens a connection to a provider: it yields messages."""

    @property
    def name(self) -> str: ...

    @property
    def pays(self) -> Pays: ...

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        """Return what paying `amounts` under `offers` costs beside the amounts themselves."""

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        """Make sure `need` can be reserved with the offer's payee, on chain if it must be.

        Never more than the open hold it serves less what is already there.  Returns messages for
        the provider.  Raises InsufficientFunds, NotAllowed, SettlementFailed, OverBudget.
        """

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Set the attempt's at most aside on this rail and return what goes with the request.

        Raises InsufficientFunds when `fund` has to come first.
        """

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        """Pay for a verified result; the messages tell the provider.

        Raises SettlementFailed, and InsufficientFunds when `fund` has to come first.
        """

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        """Undo a reservation, and return whether its money may be drawn all the same.

        What may be drawn stays reserved until this rail says what became of it; an uncertain
        one is counted as spent.
        """

    async def balance(self) -> dict[str, Money]:
        """Return what is left with each payee, by label."""

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        """Return the messages that end what was not used for `idle` seconds.

        The money in it comes back on chain.
        """

    async def insist(self, message: Message) -> str:
        """Do what can be done without a provider that does not take a message of `close`.

        Returns in words what was done, or from when on more can be, "" for nothing.  Raises as
        `fund`, and StoreUnavailable.
        """

    async def finish(self, answer: Message) -> None:
        """Take a provider's answer to a message of this rail."""


Fate = Literal["paid", "unpaid", "open"]
"""What became of a payment that left: it arrived, it never can, or it still may."""


@runtime_checkable
class AskableRail(Protocol):
    """A rail that can be asked later what became of an attempt's payment."""

    async def lookup(self, attempt: Attempt) -> Fate:
        """Return what the chain says; raises StoreUnavailable and ProtocolBroken."""


class Verdict(Value):
    """What a verifier says of a result; `unsure` is not paid, and not held against its provider.

    `mend`: it is the verifier that failed, and whoever wrote it can mend it.
    """

    outcome: Literal["pass", "fail", "unsure"]
    reason: str = ""
    mend: bool = False


class Verifier(Protocol):
    """Whether a result may be paid.  Raises nothing: whoever cannot tell is `unsure`."""

    def accepts(self, evidence: Evidence) -> bool:
        """Return whether this verifier can tell from such evidence."""

    async def verify(self, task: Task, result: Result, evidence: Evidence) -> Verdict:
        """Look at a result, with what its provider signed."""


class ArtifactStore(Protocol):
    """Where artifacts' bytes are kept.

    `get` raises StoreUnavailable, and StateCorrupt when bytes do not hash to the digest.
    """

    @property
    def scheme(self) -> str: ...

    async def put(self, artifact: Artifact) -> Artifact:
        """Store the bytes and return the artifact with the locator added."""

    async def get(self, artifact: Artifact) -> Artifact:
        """Return the artifact with its bytes at hand, their digest checked."""
