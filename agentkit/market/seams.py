"""The interfaces between rooms, as Protocols: frozen values in and out, our errors only."""

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
    """Something that happened; `journal.events` lists all of its kinds.

    `stored_name` names a kind of event on disk, on Arweave and in `run --json`.  It never changes:
    a class may be renamed, its stored name may not.
    """

    stored_name: ClassVar[str]

    def parts(self) -> tuple[Event, ...]:
        """Return the events that readers see: this one, or several that were stored as one."""
        return (self,)


class Record(Value):
    """A row of state that events fold into, found by `key`; `journal.records` lists all kinds.

    `stored_name` names a kind of record on disk and in snapshots.  It never changes.
    """

    stored_name: ClassVar[str]

    @property
    def key(self) -> str:
        """The key that tells this record from the others of its kind."""
        raise TypeError(f"{type(self).__name__} has no key")


R = TypeVar("R", bound=Record)


class Transaction(Protocol):
    """The state file inside one transaction: reads records and appends events.

    Whoever uses it does not wait and does not use the network: other writers wait for the end of
    the transaction.  An exception undoes all that was written in it.
    """

    @property
    def now(self) -> float:
        """The time, in unix seconds, that events of this transaction carry."""

    @property
    def instance(self) -> str:
        """The name of this state file, by which two files of one wallet are told apart."""

    def append(self, stream: str, event: Event) -> int:
        """Write an event, fold it into the records, and return its number in the stream."""

    def get(self, record: type[R], key: str) -> R | None:
        """Return the record with this key, None if there is none; raises JournalDamaged."""

    def every(self, record: type[R], prefix: str = "") -> list[R]:
        """Return the records whose key starts with `prefix`, in the order of their keys."""

    def put_blob(self, data: bytes) -> str:
        """Store bytes beside the events under their sha256, and return it."""

    def get_blob(self, digest: str) -> bytes | None:
        """Return stored bytes, None if there are none; raises JournalDamaged if they changed."""


class Ledger(Protocol):
    """The budget: money set aside in our own books, and money spent.

    A run holds money for its whole plan; each attempt reserves its at most out of that hold, and
    the reservation ends by being spent or given back.

    `hold` and `reserve` raise OverBudget with the limit that is exceeded.  `reserve` also raises
    NotAllowed for a provider that the allowance does not permit, and `spend` for more than the
    attempt's at most.
    """

    def hold(self, tx: Transaction, run: str, amount: Money, budget: Money | None) -> None:
        """Set `amount` more aside for a run; it counts against every limit."""

    def reserve(self, tx: Transaction, attempt: Attempt) -> None:
        """Set an attempt's at most aside, out of what its run's hold has left."""

    def is_reserved(self, tx: Transaction, attempt: Attempt) -> bool:
        """Return whether an attempt's at most is set aside and not spent yet."""

    def spend(self, tx: Transaction, attempt: Attempt, amount: Money, standing: Standing) -> None:
        """Turn an attempt's reservation into `amount` spent."""

    def unreserve(self, tx: Transaction, attempt: Attempt) -> None:
        """Give an attempt's reservation back to the hold, because it will never be paid."""

    def reduce(self, tx: Transaction, run: str, needed: int) -> None:
        """Give back what a run's hold has beyond `needed` units and its open reservations."""

    def release(self, tx: Transaction, run: str) -> None:
        """End a run's hold; what it has left counts against no limit any more."""

    def left(self, tx: Transaction, run: str) -> Money | None:
        """Return what a run's hold can still reserve, None without a hold."""


class ProviderInfo(Value):
    """What a provider says about itself.

    `finds`: it can be asked later what became of an attempt; `up`: it answers now; `label` marks a
    stand-in, such as a simulated provider.
    """

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
    """A network or pool that does tasks; one adapter implements it for each kind of provider.

    Nothing it sends is trusted: whoever calls it checks outputs, prices and signatures.  Besides
    the errors listed, every method may raise Unavailable, RateLimited and ProtocolBroken; an error
    with `unknown` set says that the request may have been acted on.
    """

    @property
    def name(self) -> str:
        """The name under which the provider is configured."""

    async def describe(self) -> ProviderInfo:
        """Ask the provider about itself, for `agentkit providers`."""

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        """Return offers for a spec; raises Refused with the reason when it cannot be done."""

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        """Hand a task over under `attempt.id`, with its payment.

        The same attempt handed over again is the same job.  Raises Refused, and OfferExpired, also
        when the provider asks for other payment terms than it offered.
        """

    async def find(self, attempt: Attempt) -> JobStatus | None:
        """Return the state of an attempt whose answer was lost, None when it never arrived.

        Where the payment goes with the request, None can also mean that the provider cannot look
        it up; then the same attempt is handed over again, with the same payment.  Raises
        ProtocolBroken for a provider whose offers say `finds=False`.
        """

    async def status(self, attempt: Attempt) -> JobStatus:
        """Return the state of a submitted attempt; raises LeaseLost when the provider lost it."""

    async def result(self, attempt: Attempt) -> Result:
        """Wait for the result and return it; raises LeaseLost, and Refused when the job failed."""

    async def cancel(self, attempt: Attempt) -> None:
        """Ask the provider to stop an attempt; one that it does not know is not an error."""

    async def carry(self, message: Message) -> Message:
        """Bring a rail's message to the provider node and return its answer; raises Refused."""

    async def close(self) -> None:
        """Close connections."""


@dataclass(frozen=True)
class Wanted:
    """The attempt that `Rail.fund` puts money in place for.

    Its at most may be less than the `need` that is funded, which may cover later attempts, too.
    `reserve` sets the at most aside.  A rail that locks money for this attempt alone calls it in
    the transaction that signs, so that nothing is locked that is not reserved.
    """

    attempt: Attempt
    reserve: Callable[[Transaction], None]


class Rail(Protocol):
    """A way of paying.

    A rail never connects to a provider.  It returns messages, which the caller carries to the
    provider (`Provider.carry`) and whose answers it brings back (`finish`).

    One purchase goes through `fund` (put money in place), `reserve` (before the request), and
    `settle` (after a verified result) or `release` (without one).  `close` and `insist` bring
    back what was put in place and is not needed any more.
    """

    @property
    def name(self) -> str:
        """The name of the rail in offers and attempts."""

    @property
    def pays(self) -> Pays:
        """When this rail parts with money."""

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        """Return the fees, such as gas, of paying `amounts`, which are one for each of `offers`."""

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        """Put money in place, on chain if need be, so that `need` can be reserved with a payee.

        What lies there already counts first, and no more is added than the run's open hold.
        Returns messages for the provider.  Raises InsufficientFunds, NotAllowed, SettlementFailed,
        OverBudget.
        """

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Set an attempt's at most aside on this rail, and return what goes with the request.

        Raises InsufficientFunds when `fund` has to be called first.
        """

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        """Pay for a verified result; returns its receipt, and the messages that tell the provider.

        Raises SettlementFailed, and InsufficientFunds when `fund` has to be called first.
        """

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        """Undo an attempt's reservation; returns whether the payee may draw its money even so.

        If it may, the money stays reserved until this rail learns what became of it.  `uncertain`:
        nobody knows whether the attempt was done, and its at most counts as spent.
        """

    async def balance(self) -> dict[str, Money]:
        """Return the money that is left with each payee, by a label for people."""

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        """Return the messages that close what was not used for `idle` seconds.

        When a provider has carried one out, the money that is left comes back on chain.
        """

    async def insist(self, message: Message) -> str:
        """Close without the provider, because it did not carry out a message of `close`.

        Contracts allow that only step by step, each after a delay.  Returns in words what was
        done, or when the next step is possible, "" if nothing can be done.  Raises as `fund`, and
        StoreUnavailable.
        """

    async def finish(self, answer: Message) -> None:
        """Take a provider's answer to a message of this rail, and book what it proves."""


Fate = Literal["paid", "unpaid", "open"]
"""The outcome of a payment that was sent: it arrived, it never can, or it still may."""


@runtime_checkable
class AskableRail(Protocol):
    """A rail that can look up later what became of an attempt's payment."""

    async def questions(self, attempt: Attempt) -> Sequence[Message]:
        """Return the messages that ask the provider about it; their answers go to `finish`."""

    async def lookup(self, attempt: Attempt) -> Fate:
        """Return what the chain, or the provider's answers, say about an attempt's payment.

        Raises StoreUnavailable and ProtocolBroken.
        """

    def charged(self, tx: Transaction, attempt: Attempt) -> Money | None:
        """Return what was charged for an attempt that brought nothing, None if not known."""


class Verdict(Value):
    """What a verifier says about a result.

    `pass` is paid.  `fail` is not paid, and counts against the provider; `unsure` is not paid
    either, and counts against nobody.  `mend`: the verifier itself failed and has to be mended.
    """

    outcome: Literal["pass", "fail", "unsure"]
    reason: str = ""
    mend: bool = False


class Verifier(Protocol):
    """Decides whether a result may be paid; it raises nothing, but answers `unsure`."""

    def accepts(self, evidence: Evidence) -> bool:
        """Return whether this verifier can decide from such evidence."""

    async def verify(self, task: Task, result: Result, evidence: Evidence) -> Verdict:
        """Judge a result of a task, with what its provider signed."""


class ArtifactStore(Protocol):
    """Stores the bytes of artifacts.

    `get` raises StoreUnavailable, and StateCorrupt when bytes do not hash to the digest.
    """

    @property
    def scheme(self) -> str:
        """The scheme of this store's locators, such as `ipfs`."""

    async def put(self, artifact: Artifact) -> Artifact:
        """Store the bytes and return the artifact with the locator added."""

    async def get(self, artifact: Artifact) -> Artifact:
        """Return the artifact with its bytes in memory or on disk, their digest checked."""
