"""The jobs of a provider node: each attempt taken once, its answer stored by its key."""

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
from agentkit.payments.escrow.terms import EscrowJob
from agentkit.pool.pool import Pool
from agentkit.pool.request import Done
from agentkit.pool.services import params_of
from agentkit.providers.wire import Submission
from agentkit.serve.payment_books import Till
from agentkit.serve.uploads import MAX_INPUT, Uploads

MAX_OPEN = 64
"""Jobs that may be open at once, and requests for further ones that are looked at meanwhile."""

MAX_OPEN_OF_ONE = 32
"""How many of them may be one payer's, so that there is room for others."""

MAX_INPUTS = 64
MAX_COUNT = 2**53
"""The largest count of a unit in a load: beyond it a number is not exact everywhere."""


@dataclass(frozen=True, slots=True)
class Charged:
    """What a task is charged by, and who wants to know how long it took (units, seconds)."""

    rates: Mapping[str, Rate]
    observe: Callable[[Mapping[str, int], float], None]


log = logging.getLogger(__name__)


class Jobs:
    """Takes attempts, has the pool do them, signs what was delivered."""

    def __init__(
        self,
        journal: Journal,
        pool: Pool,
        till: Till,
        store: LocalStore,
        uploads: Uploads,
        *,
        signer: Signer,
        network: Network,
    ) -> None:
        self._journal = journal
        self._pool = pool
        self._till = till
        self._signer = signer
        self._network = network
        self._store = store
        self._uploads = uploads
        self._admitting: set[str] = set()
        self._working: dict[str, asyncio.Task[None]] = {}
        self._payers: dict[str, str] = {}  # of the jobs at work
        self._starts: dict[str, asyncio.Future[int]] = {}
        self._cancelled: set[str] = set()

    async def recover(self) -> None:
        """Fail what an earlier process of this node left unfinished; it can be asked for anew."""
        for job in await self._journal.commit(lambda tx: tx.every(r.Job)):
            if job.state in ("queued", "running"):
                await self._end(job.attempt, "failed", "the node was restarted")

    async def take(self, submission: Submission, charged: Charged) -> r.Job:
        """Accept an attempt, or return the one that has its key.

        What costs the least comes first, and nothing is read, fetched or computed for a task
        before it is admitted: paid for, within its payer's window, with room for it here.

        Raises Refused: no task of this pool, unpaid, dearer than its at most, another task's key;
        RateLimited: no room now.
        """
        known = await self.find(submission.attempt)
        digest = task_digest(submission)
        if known and known.task != digest:
            raise Refused("this key belongs to another task")
        if known and known.state not in ("failed", "cancelled"):
            return known
        _check_sizes(submission)
        self._check_price(submission, charged.rates)
        if len(self._working) + len(self._admitting) >= MAX_OPEN:
            raise RateLimited("as many jobs are open here as there may be", retry_after=1.0)
        if submission.attempt in self._admitting:
            raise RateLimited("this attempt is being looked at already", retry_after=0.2)
        self._admitting.add(submission.attempt)
        try:
            return await self._admit(submission, charged, digest)
        finally:
            self._admitting.discard(submission.attempt)

    async def _admit(self, submission: Submission, charged: Charged, digest: str) -> r.Job:
        """Check the payment of a job that would be taken, then what it asks, and begin it."""
        attempt, task = submission.attempt, submission.task
        paid_by = await self._till.admit(submission)
        given = submission.payment.get("escrow")
        escrow = EscrowJob.read(given).document() if given else {}
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
                channel=paid_by,
                at_most=submission.at_most,
                escrow=escrow,
            )
            job, new = await self._journal.commit(
                lambda tx: _take(tx, taken, self._till.check_window)
            )
        except BaseException:
            self._uploads.release(attempt)
            raise
        if new:
            self._payers[attempt] = payer
            self._working[attempt] = asyncio.create_task(self._work(submission, charged))
        return job

    def missing(self, attempt: str) -> tuple[str, ...]:
        """Return the digests of the inputs that a job waits for, to be uploaded."""
        return self._uploads.missing(attempt)

    async def find(self, attempt: str) -> r.Job | None:
        """Return an attempt as it stands, None when it never arrived."""
        return await self._journal.commit(lambda tx: tx.get(r.Job, attempt))

    async def wait(self, attempt: str, seconds: float) -> r.Job | None:
        """Return an attempt as it stands once it has ended, or after `seconds`."""
        working = self._working.get(attempt)
        if working and seconds > 0:
            await asyncio.wait([working], timeout=seconds)
        return await self.find(attempt)

    async def outputs(self, job: r.Job) -> tuple[Artifact, ...]:
        """Return the stored answer of a job that is done."""
        return tuple([await self._load(produced) for produced in job.outputs])

    async def cancel(self, attempt: str) -> None:
        """Stop an attempt; one that has ended, or never was, stays as it is."""
        working = self._working.get(attempt)
        if working:
            self._cancelled.add(attempt)
            self._uploads.give_up(attempt)
            await self._pool.cancel(attempt)
            await asyncio.wait([working])

    async def executions(self) -> list[str]:
        """Return the execution log: the attempt of every time that work began."""
        rows = await self._journal.rows(e.NODE)
        return [x.attempt for row in rows if isinstance(x := row.event(), e.JobStarted)]

    def started(self, attempt: str) -> None:
        """Log that work begins; the pool calls this right before it does."""
        log = self._journal.commit(lambda tx: tx.append(e.NODE, e.JobStarted(attempt=attempt)))
        self._starts[attempt] = asyncio.ensure_future(log)

    async def close(self) -> None:
        """Stop all work and wait until that is written."""
        for attempt in list(self._working):
            await self.cancel(attempt)

    # -- inside ----------------------------------------------------------------------------------

    def _check_price(self, submission: Submission, rates: Mapping[str, Rate]) -> None:
        try:
            most = charge(self._network.currency, dict(rates), submission.task.load.most)
            if submission.at_most < most:
                raise Refused(f"this task can come to {most}, above {submission.at_most}")
        except BadAmount as error:
            raise Refused(str(error)) from error

    async def _work(self, submission: Submission, charged: Charged) -> None:
        """Do a task, price it and store its result; whatever happens, the job ends on record."""
        attempt, task = submission.attempt, submission.task
        try:
            inputs = await self._inputs(submission)
            began = time.monotonic()
            done = await self._pool.run(
                attempt, task.kind, task.params, inputs, declared=task.load.most
            )
            charged.observe(done.usage, time.monotonic() - began)
            done = _with_cpu(done, task.load.most)
            price = charge(self._network.currency, dict(charged.rates), done.usage)
            if price > submission.at_most:
                raise Refused(f"it came to {price}, above the at most of {submission.at_most}")
            await self._deliver(attempt, done, price)
        except AgentKitError as error:
            state: JobState = "cancelled" if attempt in self._cancelled else "failed"
            fault = TASK_FAULT if getattr(error, "of_task", False) else ""
            await self._end(attempt, state, brief(error), fault=fault)
        except Exception:
            log.exception("task %s", attempt[:12])  # the boundary of a task
            await self._end(attempt, "failed", "the node failed at this task")
        finally:
            self._working.pop(attempt, None)
            self._payers.pop(attempt, None)
            self._uploads.release(attempt)
            self._cancelled.discard(attempt)

    async def _inputs(self, submission: Submission) -> dict[str, Artifact]:
        """Return a job's inputs once all are here, looked at again where they came late."""
        attempt, task = submission.attempt, submission.task
        late = bool(self._uploads.missing(attempt))
        if late:
            await self._uploads.arrival(attempt)
        inputs = {name: self._uploads.artifact(wire) for name, wire in task.inputs.items()}
        if late:
            await self._pool.check(task.kind, task.params, inputs, task.load.most)
        if attempt in self._cancelled:
            raise Refused("it was cancelled before it began")
        return inputs

    async def _deliver(self, attempt: str, done: Done, price: Money) -> None:
        """Store the answer under its key, signed."""
        outputs = [await self._store.put(a) if a.size > INLINE_BYTES else a for a in done.outputs]
        result = result_digest([output.digest for output in outputs])
        said = delivery_of(attempt, result, price, done.usage)
        signature = self._signer.sign_delivery(self._network.channels_domain, said).hex()
        await self._end(
            attempt,
            "done",
            outputs=tuple(outputs),
            usage=done.usage,
            price=price,
            signature=signature,
            model=done.model,
        )

    async def _end(self, attempt: str, state: JobState, reason: str = "", **result: Any) -> None:
        """Write the end of an attempt, after the log line of its start."""
        start = self._starts.pop(attempt, None)
        if start:
            await start
        outputs: tuple[Artifact, ...] = result.pop("outputs", ())

        def work(tx: Transaction) -> None:
            produced = keep(tx, outputs)
            tx.append(
                e.NODE,
                e.JobEnded(attempt=attempt, state=state, reason=reason, outputs=produced, **result),
            )

        await self._journal.commit(work)

    async def _load(self, produced: Produced) -> Artifact:
        if produced.size > INLINE_BYTES:
            return await self._store.get(produced.artifact())
        return await self._journal.commit(lambda tx: fetch(tx, produced))


def _with_cpu(done: Done, declared: Mapping[str, int]) -> Done:
    """Count the measured processor time where it was declared, and charge no more than that."""
    if CPU_MS not in declared:
        return done
    return replace(done, usage={**done.usage, CPU_MS: min(done.cpu_ms, declared[CPU_MS])})


def task_digest(submission: Submission) -> str:
    """Return the digest of what a submission asks, however its inputs travel."""
    task = submission.task
    bare = {name: artifact.digest for name, artifact in task.inputs.items()}
    return result_digest(
        [task.model_dump_json(exclude={"inputs"}), *map(str, sorted(bare.items()))]
    )


def _payer_of(submission: Submission, escrow: dict[str, Any]) -> str:
    """Return who pays, in the spelling that all of a payer's jobs are counted under."""
    return str((escrow.get("quote") or submission.payment)["payer"]).lower()


def _check_sizes(submission: Submission) -> None:
    """Refuse what is no task, or larger than any may be, by what it says of itself alone."""
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
    """Write a job that was admitted, unless another request has done so or took its room."""
    known = tx.get(r.Job, taken.attempt)
    if known and known.state not in ("failed", "cancelled"):
        return known, False
    if tx.get(r.GivenBack, taken.channel):  # its payer asked for that since it was admitted
        raise Refused("this node gave its word to take nothing for this attempt")
    booked = tx.get(r.BookedChannel, taken.channel)
    needed = booked.delivered + booked.working + taken.at_most.units if booked else 0
    if booked and needed > booked.deposited:  # another task took the room since it was admitted
        raise Refused(f"the channel holds {booked.deposited} units and {needed} are needed")
    if booked:
        window(tx, booked.payer)
    tx.append(e.NODE, taken)
    job = tx.get(r.Job, taken.attempt)
    if job is None:
        raise Refused("the job was not written")
    return job, True
