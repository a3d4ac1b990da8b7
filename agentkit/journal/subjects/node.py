"""Node: the jobs that a provider node took, and how they are paid, in its own state file."""

from __future__ import annotations

from typing import Any, ClassVar

from agentkit.journal.folding import Records, existing, folds, update
from agentkit.journal.produced import Produced
from agentkit.journal.subjects.channel_sales import charge_on_delivery
from agentkit.market.attempt import JobState
from agentkit.market.seams import Event, Record
from agentkit.money import Money

# -- events: jobs --------------------------------------------------------------------------------


class JobTaken(Event):
    """An attempt was accepted.

    `channel` is the payment channel on which it is paid, or the id of its job in escrow.
    """

    stored_name: ClassVar[str] = "JobTaken"
    attempt: str
    task: str
    payer: str
    channel: str
    at_most: Money
    escrow: dict[str, Any] = {}


class JobStarted(Event):
    """Work on an attempt began; there is one such event for each execution."""

    stored_name: ClassVar[str] = "JobStarted"
    attempt: str


class JobEnded(Event):
    """Work on an attempt ended; it has `outputs` and a `price` if it was done.

    `fault` is as in `market.attempt.JobStatus`, `finish_reason` as in `market.attempt.Result`.
    """

    stored_name: ClassVar[str] = "JobEnded"
    attempt: str
    state: JobState
    reason: str = ""
    fault: str = ""
    outputs: tuple[Produced, ...] = ()
    usage: dict[str, int] = {}
    price: Money | None = None
    signature: str = ""
    model: str = ""
    finish_reason: str = ""


# -- events: channels ----------------------------------------------------------------------------


class VoucherTaken(Event):
    """A payer's voucher, over more than the one before, was checked and stored."""

    stored_name: ClassVar[str] = "VoucherTaken"
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
    scheme: str = ""


class CloseSeen(Event):
    """A payer asked the contract for the rest of its channel: the node works no more for it."""

    stored_name: ClassVar[str] = "CloseSeen"
    channel: str


class ChannelSettled(Event):
    """The node claimed its newest voucher, and the rest went back to the payer."""

    stored_name: ClassVar[str] = "ChannelSettled"
    channel: str
    claimed: Money


# -- events: escrow ------------------------------------------------------------------------------


class EscrowEarned(Event):
    """A payer signed (`accept`) that what was delivered is worth `pay` of what is locked."""

    stored_name: ClassVar[str] = "EscrowEarned"
    attempt: str
    job: dict[str, Any]
    pay: Money
    result: str
    accept: str


class EscrowGivenBack(Event):
    """The node signed that it takes nothing from job `id`; it works no more for it."""

    stored_name: ClassVar[str] = "EscrowGivenBack"
    attempt: str
    id: str


class EscrowSubmitted(Event):
    """The node told the contract that it delivered; the payer may judge that until `due`."""

    stored_name: ClassVar[str] = "EscrowSubmitted"
    attempt: str
    due: int


class EscrowSettled(Event):
    """The contract paid out what was locked for an attempt: `paid` came to the node."""

    stored_name: ClassVar[str] = "EscrowSettled"
    attempt: str
    paid: Money


# -- records -------------------------------------------------------------------------------------


class Job(Record):
    """An attempt as the provider node sees it; fields as in `JobTaken` and `JobEnded`."""

    stored_name: ClassVar[str] = "Job"
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
    finish_reason: str = ""

    @property
    def key(self) -> str:
        return self.attempt


class BookedChannel(Record):
    """A channel as the provider node sees it: its newest voucher, and what was delivered on it.

    `working` is the most that unfinished tasks on it can cost.  `closing`: its payer asked for the
    rest back.  `scheme` as in `channels.Channel`.
    """

    stored_name: ClassVar[str] = "BookedChannel"
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
    scheme: str = ""

    @property
    def key(self) -> str:
        return self.channel

    @property
    def used(self) -> int:
        """What the channel's deposit is used for: paid or delivered, and what is worked on.

        A node that lost its books knows of a payment and not of what was delivered for it.
        """
        return max(self.delivered, self.cumulative) + self.working


class EarnedEscrow(Record):
    """An attempt that is paid out of escrow, as the provider node sees it.

    `accept` is the payer's signature over `pay`; until `due` it may judge what was submitted.
    """

    stored_name: ClassVar[str] = "EarnedEscrow"
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

    stored_name: ClassVar[str] = "GivenBack"
    id: str

    @property
    def key(self) -> str:
        return self.id


# -- folds: jobs ---------------------------------------------------------------------------------


@folds(JobTaken)
def _fold_job_taken(event: JobTaken, stream: str, at: float, records: Records) -> None:
    before = records.get(Job, event.attempt)
    executions = before.executions if before else 0
    records.put(Job(**event.model_dump(), executions=executions))
    _change_work(records, event.channel, working=event.at_most.units)


@folds(JobStarted)
def _fold_job_started(event: JobStarted, stream: str, at: float, records: Records) -> None:
    job = existing(records, Job, event.attempt)
    changes = {"state": "running", "executions": job.executions + 1}
    records.put(job.model_copy(update=changes))


SAID_AT_THE_END = (
    "state",
    "reason",
    "fault",
    "outputs",
    "usage",
    "price",
    "signature",
    "model",
    "finish_reason",
)
"""The fields of a job that the event of its end says."""


@folds(JobEnded)
def _fold_job_ended(event: JobEnded, stream: str, at: float, records: Records) -> None:
    """Take over what the event says, and count the job as delivered instead of as work."""
    job = existing(records, Job, event.attempt)
    changes = {field: getattr(event, field) for field in SAID_AT_THE_END}
    records.put(job.model_copy(update=changes))

    price = event.price.units if event.price else 0
    _change_work(records, job.channel, working=-job.at_most.units, delivered=price)


def _change_work(records: Records, channel: str, *, working: int, delivered: int = 0) -> None:
    """Add units to what is worked on and delivered on a channel, if the job has a channel."""
    booked = records.get(BookedChannel, channel)
    if booked:
        changes = {
            "working": booked.working + working,
            "delivered": booked.delivered + delivered,
        }
        records.put(booked.model_copy(update=changes))


# -- folds: channels -----------------------------------------------------------------------------


@folds(VoucherTaken)
def _fold_voucher_taken(event: VoucherTaken, stream: str, at: float, records: Records) -> None:
    """Put the newer voucher in the place of the older; what was done on the channel stays."""
    before = records.get(BookedChannel, event.channel)
    records.put(
        BookedChannel(
            channel=event.channel,
            payer=event.payer,
            token=event.token,
            close_delay=event.close_delay,
            salt=event.salt,
            deposited=event.deposited.units,
            cumulative=event.cumulative.units,
            tasks=event.tasks,
            root=event.root,
            signature=event.signature,
            delivered=before.delivered if before else 0,
            working=before.working if before else 0,
            closing=before.closing if before else False,
            scheme=event.scheme,
        )
    )
    if event.scheme:
        charge_on_delivery(records, event.channel, event.cumulative.units, event.signature, at)


@folds(CloseSeen)
def _fold_close_seen(event: CloseSeen, stream: str, at: float, records: Records) -> None:
    update(records, BookedChannel, event.channel, closing=True)


@folds(ChannelSettled)
def _fold_channel_settled(event: ChannelSettled, stream: str, at: float, records: Records) -> None:
    update(records, BookedChannel, event.channel, settled=True)


# -- folds: escrow -------------------------------------------------------------------------------


@folds(EscrowEarned)
def _fold_escrow_earned(event: EscrowEarned, stream: str, at: float, records: Records) -> None:
    """Keep the payer's signature: with it the node can take the money from the contract."""
    _update_earned(
        records,
        event.attempt,
        job=event.job,
        pay=event.pay,
        result=event.result,
        accept=event.accept,
    )


@folds(EscrowGivenBack)
def _fold_given_back(event: EscrowGivenBack, stream: str, at: float, records: Records) -> None:
    # An event of version 1 has no `id`; then the job that was taken tells it.
    job = records.get(Job, event.attempt)
    escrow_id = event.id or (job.channel if job else "")
    if escrow_id:
        records.put(GivenBack(id=escrow_id))


@folds(EscrowSubmitted)
def _fold_submitted(event: EscrowSubmitted, stream: str, at: float, records: Records) -> None:
    _update_earned(records, event.attempt, due=event.due)


@folds(EscrowSettled)
def _fold_escrow_settled(event: EscrowSettled, stream: str, at: float, records: Records) -> None:
    _update_earned(records, event.attempt, settled=True)


def _update_earned(records: Records, attempt: str, **fields: object) -> None:
    """Change some fields of what the node has earned for an attempt; starts its record."""
    earned = records.get(EarnedEscrow, attempt) or EarnedEscrow(attempt=attempt)
    records.put(earned.model_copy(update=fields))
