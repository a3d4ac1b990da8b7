"""The jobs of a provider node: each attempt is taken once, and its answer stored by its key."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentkit.artifacts import Artifact
from agentkit.errors import (
    AgentKitError,
    BadAmount,
    RateLimited,
    Refused,
    brief,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.blobs import INLINE_BYTES, fetch, keep
from agentkit.journal.journal import Journal
from agentkit.journal.produced import Produced
from agentkit.keys.signer import Signer
from agentkit.market.attempt import TASK_FAULT, JobState, result_digest
from agentkit.market.chain import Network
from agentkit.market.offer import charge
from agentkit.market.receipt import delivery_of
from agentkit.market.seams import Transaction
from agentkit.market.task import CPU_MS
from agentkit.memory.artifacts.local import LocalStore
from agentkit.money import Money, Rate
from agentkit.payments.channels.book import check_room
from agentkit.payments.escrow.terms import EscrowJob
from agentkit.pool.pool import Pool
from agentkit.pool.request import Done
from agentkit.pool.services import params_of
from agentkit.providers.wire import Submission
from agentkit.serve.payment_books import PaymentBooks
from agentkit.serve.uploads import MAX_INPUT, Uploads

MAX_OPEN = 64
"""How many jobs may be open at once, those that are just being checked included."""

MAX_OPEN_OF_ONE = 32
"""How many of them may be of one payer, so that one payer cannot take all of the room."""

MAX_INPUTS = 64
MAX_COUNT = 2**53
"""The largest count of a unit in a load: JSON readers do not read larger numbers exactly."""


@dataclass(frozen=True, slots=True)
class TaskPricing:
    """The rates by which a task is charged; `observe` is called with its units and seconds."""

    rates: Mapping[str, Rate]
    observe: Callable[[Mapping[str, int], float], None]


log = logging.getLogger(__name__)


class Jobs:
    """Takes attempts, has the pool do them, and signs and stores what was delivered."""

    def __init__(
        self,
        journal: Journal,
        pool: Pool,
        payment_books: PaymentBooks,
        store: LocalStore,
        uploads: Uploads,
        *,
        signer: Signer,
        network: Network,
    ) -> None:
        self._journal = journal
        self._pool = pool
        self._payment_books = payment_books
        self._signer = signer
        self._network = network
        self._store = store
        self._uploads = uploads
        self._admitting: dict[str, asyncio.Event] = {}  # set at the end of each
        self._working: dict[str, asyncio.Task[None]] = {}
        self._payers: dict[str, str] = {}  # of the jobs at work
        self._starts: dict[str, asyncio.Future[int]] = {}
        self._cancelled: set[str] = set()

    async def recover(self) -> None:
        """Record jobs that an earlier process left unfinished as failed.

        Their payers may submit them again under the same key.
        """
        for job in await self._journal.commit(lambda tx: tx.every(r.Job)):
            if job.state in ("queued", "running"):
                await self._end(job.attempt, "failed", "the node was restarted")

    async def take(self, submission: Submission, pricing: TaskPricing) -> r.Job:
        """Accept an attempt and start it, or return the job that has its key already.

        The cheapest checks come first.  Nothing is read, fetched or computed for a task before it
        is admitted: its payment is checked, its payer does not owe too much, and there is room.

        Raises Refused if the pool does not do the task, its payment is missing, its price may
        exceed what the payer allows, or the key belongs to another task.  Raises RateLimited if
        there is no room now.
        """
        existing = await self.find(submission.attempt)
        digest = task_digest(submission)
        if existing and existing.task != digest:
            raise Refused("this key belongs to another task")
        if existing and existing.state not in ("failed", "cancelled"):
            return existing
        _check_sizes(submission)
        self._check_price(submission, pricing.rates)
        if len(self._working) + len(self._admitting) >= MAX_OPEN:
            raise RateLimited("as many jobs are open here as there may be", retry_after=1.0)
        if submission.attempt in self._admitting:
            raise RateLimited("this attempt is being looked at already", retry_after=0.2)
        ended = self._admitting[submission.attempt] = asyncio.Event()
        try:
            return await self._admit(submission, pricing, digest)
        finally:
            del self._admitting[submission.attempt]
            ended.set()

    async def _admit(self, submission: Submission, pricing: TaskPricing, digest: str) -> r.Job:
        """Check a job's payment and then its task, record it, and start to work on it."""
        attempt = submission.attempt
        task = submission.task
        channel_or_escrow_id = await self._payment_books.admit(submission)
        escrow_document = submission.payment.get("escrow")
        escrow = EscrowJob.read(escrow_document).document() if escrow_document else {}
        payer = _payer_of(submission, escrow)
        if list(self._payers.values()).count(payer) >= MAX_OPEN_OF_ONE:
            raise RateLimited("as many jobs of this payer are open as may be", retry_after=1.0)

        self._uploads.expect(attempt, task.inputs.values())
        try:
            inputs = {name: self._uploads.artifact(wire) for name, wire in task.inputs.items()}
            await self._pool.check(task.kind, task.params, inputs, task.load.most)
            taken = e.JobTaken(
                attempt=attempt,
                task=digest,
                payer=payer,
                channel=channel_or_escrow_id,
                at_most=submission.at_most,
                escrow=escrow,
            )
            job, is_new = await self._journal.commit(
                lambda tx: _take(tx, taken, self._payment_books.check_window)
            )
        except BaseException:
            self._uploads.release(attempt)
            raise
        if is_new:
            self._payers[attempt] = payer
            self._working[attempt] = asyncio.create_task(self._work(submission, pricing))
        return job

    def missing(self, attempt: str) -> tuple[str, ...]:
        """Return the digests of the inputs that a job still waits for."""
        return self._uploads.missing(attempt)

    async def find(self, attempt: str) -> r.Job | None:
        """Return the job of an attempt, None if it never arrived.

        One that is being admitted is waited for: its payer may have died meanwhile, and would buy
        elsewhere what is then delivered here.
        """
        if attempt in self._admitting:
            await self._admitting[attempt].wait()
        return await self._journal.commit(lambda tx: tx.get(r.Job, attempt))

    async def wait(self, attempt: str, seconds: float) -> r.Job | None:
        """Return the job of an attempt once it has ended, or after `seconds`."""
        working = self._working.get(attempt)
        if working and seconds > 0:
            await asyncio.wait([working], timeout=seconds)
        return await self.find(attempt)

    async def outputs(self, job: r.Job) -> tuple[Artifact, ...]:
        """Return the stored outputs of a job that is done."""
        return tuple([await self._load(produced) for produced in job.outputs])

    async def cancel(self, attempt: str) -> None:
        """Stop an attempt that is at work; for any other attempt nothing is done."""
        working = self._working.get(attempt)
        if working:
            self._cancelled.add(attempt)
            self._uploads.give_up(attempt)
            await self._pool.cancel(attempt)
            await asyncio.wait([working])

    async def executions(self) -> list[str]:
        """Return the execution log: an attempt's key for each time that work on it began."""
        rows = await self._journal.rows(e.NODE)
        events = [row.event() for row in rows]
        return [event.attempt for event in events if isinstance(event, e.JobStarted)]

    def started(self, attempt: str) -> None:
        """Record that work on an attempt begins; the pool calls this right before it does.

        The pool cannot wait here, so `_end` waits for this record.
        """
        recorded = self._journal.commit(lambda tx: tx.append(e.NODE, e.JobStarted(attempt=attempt)))
        self._starts[attempt] = asyncio.ensure_future(recorded)

    async def close(self) -> None:
        """Stop all work, and return once the end of every job is recorded."""
        for attempt in list(self._working):
            await self.cancel(attempt)

    # -- inside ----------------------------------------------------------------------------------

    def _check_price(self, submission: Submission, rates: Mapping[str, Rate]) -> None:
        """Raise Refused if a task's declared load can cost more than its payer allows."""
        try:
            highest_price = charge(self._network.currency, dict(rates), submission.task.load.most)
            if submission.at_most < highest_price:
                raise Refused(f"this task can come to {highest_price}, above {submission.at_most}")
        except BadAmount as error:  # the payer may name another currency
            raise Refused(str(error)) from error

    async def _work(self, submission: Submission, pricing: TaskPricing) -> None:
        """Do a task, price it and store its result; the end of the job is always recorded."""
        attempt = submission.attempt
        task = submission.task
        try:
            inputs = await self._inputs(submission)
            started_at = time.monotonic()
            done = await self._pool.run(
                attempt, task.kind, task.params, inputs, declared=task.load.most
            )
            pricing.observe(done.usage, time.monotonic() - started_at)
            done = _with_cpu(done, task.load.most)
            price = charge(self._network.currency, dict(pricing.rates), done.usage)
            if price > submission.at_most:
                raise Refused(f"it came to {price}, above the at most of {submission.at_most}")
            await self._deliver(attempt, done, price)
        except AgentKitError as error:
            state: JobState = "cancelled" if attempt in self._cancelled else "failed"
            fault = TASK_FAULT if getattr(error, "of_task", False) else ""
            await self._end(attempt, state, brief(error), fault=fault)
        except Exception:
            # A defect must not leave the job open for ever: its payer waits for the end.
            log.exception("task %s", attempt[:12])
            await self._end(attempt, "failed", "the node failed at this task")
        finally:
            self._working.pop(attempt, None)
            self._payers.pop(attempt, None)
            self._uploads.release(attempt)
            self._cancelled.discard(attempt)

    async def _inputs(self, submission: Submission) -> dict[str, Artifact]:
        """Return a job's inputs once all have arrived; raises Refused.

        Inputs that were uploaded after the job was admitted could not be checked before.
        """
        attempt = submission.attempt
        task = submission.task
        arrives_later = bool(self._uploads.missing(attempt))
        if arrives_later:
            await self._uploads.arrival(attempt)
        inputs = {name: self._uploads.artifact(wire) for name, wire in task.inputs.items()}
        if arrives_later:
            await self._pool.check(task.kind, task.params, inputs, task.load.most)
        if attempt in self._cancelled:
            raise Refused("it was cancelled before it began")
        return inputs

    async def _deliver(self, attempt: str, done: Done, price: Money) -> None:
        """Store the outputs, sign the delivery, and record the end of the job."""
        outputs: list[Artifact] = []
        for output in done.outputs:
            # Small outputs are stored in the journal itself, by `_end`.
            is_large = output.size > INLINE_BYTES
            outputs.append(await self._store.put(output) if is_large else output)

        result = result_digest([output.digest for output in outputs])
        delivery = delivery_of(attempt, result, price, done.usage)
        signature = self._signer.sign_delivery(self._network.settlement_domain, delivery).hex()
        await self._end(
            attempt,
            "done",
            outputs=tuple(outputs),
            usage=done.usage,
            price=price,
            signature=signature,
            model=done.model,
            finish_reason=done.finish_reason,
        )

    async def _end(
        self,
        attempt: str,
        state: JobState,
        reason: str = "",
        *,
        outputs: tuple[Artifact, ...] = (),
        **result: Any,
    ) -> None:
        """Record the end of an attempt; `result` is further fields of JobEnded."""
        # The start has to be in the journal before the end.
        start = self._starts.pop(attempt, None)
        if start:
            await start

        def work(tx: Transaction) -> None:
            """Store small outputs together with the event that names them."""
            ended = e.JobEnded(
                attempt=attempt,
                state=state,
                reason=reason,
                outputs=keep(tx, outputs),
                **result,
            )
            tx.append(e.NODE, ended)

        await self._journal.commit(work)

    async def _load(self, produced: Produced) -> Artifact:
        if produced.size > INLINE_BYTES:
            return await self._store.get(produced.artifact())
        return await self._journal.commit(lambda tx: fetch(tx, produced))


def _with_cpu(done: Done, declared: Mapping[str, int]) -> Done:
    """Add the measured processor time to the usage, if the task declares it, up to that much."""
    if CPU_MS not in declared:
        return done
    charged_ms = min(done.cpu_ms, declared[CPU_MS])
    return replace(done, usage={**done.usage, CPU_MS: charged_ms})


def task_digest(submission: Submission) -> str:
    """Return the digest of a submitted task; it is the same for inline and uploaded inputs."""
    task = submission.task
    input_digests = {name: artifact.digest for name, artifact in task.inputs.items()}
    return result_digest(
        [task.model_dump_json(exclude={"inputs"}), *map(str, sorted(input_digests.items()))]
    )


def _payer_of(submission: Submission, escrow: dict[str, Any]) -> str:
    """Return the payer's address in lower case, under which its jobs are counted."""
    document = escrow.get("quote") or submission.payment
    return str(document["payer"]).lower()


def _check_sizes(submission: Submission) -> None:
    """Raise Refused for invalid parameters, and for a load or inputs larger than any may be.

    Only what the submission declares is checked, so this costs nothing.
    """
    task = submission.task
    params_of(task.kind, task.params)
    for unit, count in (*task.load.most.items(), *task.load.expected.items()):
        if abs(count) > MAX_COUNT:
            raise Refused(f"the load counts more of {unit!r} than any task has")
    if len(task.inputs) > MAX_INPUTS:
        raise Refused(f"a task has {MAX_INPUTS} inputs at most")
    if sum(wire.size for wire in task.inputs.values()) > MAX_INPUT:
        raise Refused(f"the inputs of a task have {MAX_INPUT} bytes together at most")


def _take(
    tx: Transaction, taken: e.JobTaken, window: Callable[[Transaction, str], None]
) -> tuple[r.Job, bool]:
    """Record an admitted job; returns it, and whether it is new.

    The job was admitted before this transaction.  Meanwhile another request may have recorded it,
    its escrow may have been given back, or another job may have used up its channel.  So these are
    checked again, in the transaction that counts the job.  `window` raises RateLimited if the
    channel's payer owes too much.  Raises Refused.
    """
    existing = tx.get(r.Job, taken.attempt)
    if existing and existing.state not in ("failed", "cancelled"):
        return existing, False
    if tx.get(r.GivenBack, taken.channel):
        raise Refused("this node gave its word to take nothing for this attempt")

    booked = tx.get(r.BookedChannel, taken.channel)
    if booked:
        check_room(tx, taken.channel, taken.at_most)
        window(tx, booked.payer)

    tx.append(e.NODE, taken)
    job = tx.get(r.Job, taken.attempt)
    if job is None:
        raise Refused("the job was not written")
    return job, True
