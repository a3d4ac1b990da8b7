"""The provider's half: quotes it signs, jobs it may be sure of, and money it brings home."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agentkit.errors import InsufficientFunds, Refused, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Accept, Quote, recover, typed_digest
from agentkit.keys.signer import Signer
from agentkit.market.attempt import result_digest
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments.claims import log_failure
from agentkit.payments.escrow import terms
from agentkit.payments.escrow.terms import Job
from agentkit.payments.sender import Sender

QUOTE_LASTS = 600
"""Seconds in which a quote has to be opened."""

SLACK = 10
"""How many times as long as expected a task may take before it counts as undelivered."""

LEAST_DELIVERY, MOST_DELIVERY = 3600, 14 * 86400
JUDGE_WINDOW = 3600
ARBITER_WINDOW = 7 * 86400
DEFAULT_BPS = 5000
"""Both get half where the arbiter is silent."""

SUBMIT_BEFORE = 900
"""Seconds before the delivery is due, in which a node whose payer says nothing tells the chain."""


class EscrowBook:
    """What a provider node knows of the jobs it is paid for out of escrow.

    `arbiters` are those it trusts to decide, the zero address (nobody) among them or not.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        arbiters: tuple[str, ...] = (terms.NOBODY,),
    ) -> None:
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._arbiters = tuple(arbiter.lower() for arbiter in arbiters)
        self._sender = Sender(journal, chain, signer, network)

    def quote(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a signed quote for an attempt, as its payer asks; raises Refused."""
        now = int(time.time())
        try:
            arbiter = str(body["arbiter"])
            seconds = min(max(SLACK * float(body["seconds"]), LEAST_DELIVERY), MOST_DELIVERY)
            quote = Quote(
                payer=str(body["payer"]),
                provider=self._signer.address,
                arbiter=arbiter,
                token=self._network.token,
                price=int(body["price"]),
                deliver_by=now + int(seconds),
                judge_window=JUDGE_WINDOW,
                quote_expiry=now + QUOTE_LASTS,
                arbiter_window=ARBITER_WINDOW,
                default_bps=DEFAULT_BPS,
                task_id=bytes.fromhex(str(body["attempt"])),
                spec_hash=bytes.fromhex(str(body["task"])),
            )
            signature = self._signer.sign_quote(self._network.escrow_domain, quote)
            job = Job.read(Job(quote, signature).document())
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise Refused(f"this asks for no quote: {error!r}") from error
        if arbiter.lower() not in self._arbiters:
            raise Refused(f"the arbiter {arbiter} is not one this node trusts")
        return {**job.document(), "attempt": body["attempt"]}

    async def admit(self, body: Mapping[str, Any], attempt: str, task: str, most: Money) -> str:
        """Check that a task of `most` is paid for, and return its job's id; raises Refused."""
        job = self._mine(body.get("escrow"), attempt)
        if job.quote.spec_hash.hex() != task:
            raise Refused("the money in escrow is for another task")
        if job.quote.price < most.units:
            raise Refused(f"{job.quote.price} units are in escrow and {most.units} are needed")
        identity = job.id(self._network)
        state, due = await terms.state_of(self._chain, self._network, identity)
        now = time.time()
        if state != terms.FUNDED or now > due:
            raise Refused("no money is in escrow for this task now")
        if now > due - SUBMIT_BEFORE:
            raise Refused("too little time is left to deliver in")
        if await self._journal.commit(lambda tx: tx.get(r.GivenBack, identity.hex())):
            raise Refused("this node gave its word to take nothing for this attempt")
        return identity.hex()

    async def accept(self, body: Mapping[str, Any]) -> None:
        """Store a payer's word for what was delivered; raises Refused for a bad one."""
        attempt = str(body.get("attempt"))
        job = self._mine(body, attempt)
        done = await self._done(attempt)
        result = result_digest([output.digest for output in done.outputs]) if done else ""
        if done is None or done.price is None:
            raise Refused("nothing was delivered for this attempt")
        if done.channel != job.id(self._network).hex():
            raise Refused("what was delivered is paid in another way")
        if (body.get("result"), body.get("pay")) != (result, done.price.units):
            raise Refused("the word is for another result, or another price")
        accept = Accept(job.id(self._network), done.price.units, bytes.fromhex(result))
        word = self._signed_by_payer(job, accept, body.get("accept"))
        earned = e.EscrowEarned(
            attempt=attempt, job=job.document(), pay=done.price, result=result, accept=word
        )

        def work(tx: Transaction) -> None:
            known = tx.get(r.EarnedEscrow, attempt)
            if known is None or not known.accept:
                tx.append(e.NODE, earned)

        await self._journal.commit(work)

    async def settle(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Bring a payer's word to the chain, once, and return the transaction."""
        await self.accept(body)
        earned = await self._row(str(body.get("attempt")))
        if earned is None:
            raise Refused("nothing was earned for this attempt")
        return {"attempt": earned.attempt, "transaction": await self._bring_home(earned)}

    async def give_back(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Give our word to take nothing for what was not delivered, to its payer; raises Refused.

        The payer is told by its signature over nothing, which is worth nothing.
        """
        attempt = str(body.get("attempt"))
        job = self._mine(body, attempt)
        identity = job.id(self._network)
        nothing = Accept(identity, 0, bytes(32))
        self._signed_by_payer(job, nothing, body.get("proof"))

        def work(tx: Transaction) -> bool:
            done = tx.get(r.Job, attempt)
            ended = done is None or done.state in ("failed", "cancelled")
            if not ended and done and done.channel == identity.hex():
                return False
            tx.append(e.NODE, e.EscrowGivenBack(attempt=attempt, id=identity.hex()))
            return True

        if not await self._journal.commit(work):
            raise Refused("this attempt was delivered, or is being worked on")
        word = self._signer.sign_accept(self._network.escrow_domain, nothing)
        return {"attempt": attempt, "release": word.hex()}

    async def watch(self) -> None:
        """Do what keeps time from taking what was earned.

        Words of payers are brought to the chain; where a payer says nothing, the delivery is told
        to the contract before it is due, and the price claimed once it could have been judged.
        What fails for one attempt keeps nothing from the others.
        """
        for earned in await self._journal.commit(lambda tx: tx.every(r.EarnedEscrow)):
            if earned.accept and not earned.settled:
                await log_failure(self._bring_home(earned), f"attempt {earned.attempt[:12]}")
        for attempt, job in await self._journal.commit(_unsaid):
            await log_failure(self._insist(attempt, Job.read(job)), f"attempt {attempt[:12]}")

    # -- inside ----------------------------------------------------------------------------------

    async def _row(self, attempt: str) -> r.EarnedEscrow | None:
        return await self._journal.commit(lambda tx: tx.get(r.EarnedEscrow, attempt))

    async def _done(self, attempt: str) -> r.Job | None:
        job = await self._journal.commit(lambda tx: tx.get(r.Job, attempt))
        return job if job and job.state == "done" else None

    def _mine(self, document: Any, attempt: str) -> Job:
        """Return a job that this node has quoted for an attempt; raises Refused."""
        try:
            job = Job.read(document)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise Refused(f"this is no escrow payment: {error!r}") from error
        mine = job.quote.provider.lower() == self._signer.address.lower()
        if not mine or not job.is_signed(self._network):
            raise Refused("this node has not quoted this")
        if job.quote.task_id.hex() != attempt:
            raise Refused("the money in escrow is for another attempt")
        return job

    def _signed_by_payer(self, job: Job, accept: Accept, signature: object) -> str:
        """Return a signature that is the payer's; raises Refused."""
        digest = typed_digest(self._network.escrow_domain, accept)
        try:
            signer = recover(digest, bytes.fromhex(str(signature)))
        except ValueError as error:
            raise Refused("the payer's word cannot be read") from error
        if signer.lower() != job.quote.payer.lower():
            raise Refused("the word is not signed by the payer")
        return str(signature)

    async def _bring_home(self, earned: r.EarnedEscrow) -> str:
        """Settle by the payer's word on the chain and return the transaction."""
        job = Job.read(earned.job)
        pay = earned.pay or self._network.currency.zero()
        accept = Accept(job.id(self._network), pay.units, bytes.fromhex(earned.result))
        data = terms.accept_call(job, accept, bytes.fromhex(earned.accept))
        return await self._send(earned.attempt, job, "accept", data)

    async def _insist(self, attempt: str, job: Job) -> None:
        """Go on without the payer's word, where it is time to."""
        now, done = time.time(), await self._done(attempt)
        state, due = await terms.state_of(self._chain, self._network, job.id(self._network))
        if state == terms.FUNDED and done and due - SUBMIT_BEFORE <= now <= due:
            result = bytes.fromhex(result_digest([output.digest for output in done.outputs]))
            data = job.call(f"submit({terms.QUOTE},bytes32)", result)
            await self._sender.send(f"submit:{attempt}", self._network.escrow, data)
            submitted = e.EscrowSubmitted(attempt=attempt, due=int(now) + job.quote.judge_window)
            await self._journal.commit(lambda tx: tx.append(e.NODE, submitted))
        elif state == terms.SUBMITTED and now > due:
            data = job.call(f"claimUnjudged({terms.QUOTE})")
            await self._send(attempt, job, "unjudged", data)

    async def _send(self, attempt: str, job: Job, why: str, data: bytes) -> str:
        """Send what settles a job, and write down what it came to."""
        try:
            receipt = await self._sender.send(f"settle:{attempt}:{why}", self._network.escrow, data)
        except InsufficientFunds as error:
            raise Refused(
                f"this node cannot claim: its own wallet {self._signer.address} is short of gas"
            ) from error
        found = terms.settled_in(receipt, self._network, job.id(self._network))
        if found is None:
            raise SettlementFailed(f"transaction {receipt.transaction} settled nothing")
        settled = e.EscrowSettled(attempt=attempt, paid=Money(found[0], self._network.currency))

        def work(tx: Transaction) -> None:
            known = tx.get(r.EarnedEscrow, attempt)
            if known is None or not known.settled:
                tx.append(e.NODE, settled)

        await self._journal.commit(work)
        return receipt.transaction


def _unsaid(tx: Transaction) -> list[tuple[str, dict[str, Any]]]:
    """Return (attempt, job) of what was delivered, and its payer has said nothing about."""
    jobs = [job for job in tx.every(r.Job) if job.state == "done" and job.escrow]
    known = {job.attempt: tx.get(r.EarnedEscrow, job.attempt) for job in jobs}
    return [
        (j.attempt, j.escrow)
        for j in jobs
        if not (x := known[j.attempt]) or not (x.accept or x.settled)
    ]
