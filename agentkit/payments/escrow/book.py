"""The provider's book: the quotes it signs, the jobs whose money is locked, and what it earned."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from agentkit.errors import (
    InsufficientFunds,
    ProtocolBroken,
    Refused,
    SettlementFailed,
    StoreUnavailable,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Accept, Quote, recover, typed_digest
from agentkit.keys.signer import Signer
from agentkit.market.attempt import result_digest
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments.claims import log_failure
from agentkit.payments.escrow import terms
from agentkit.payments.escrow.relay import EscrowOrder, EscrowRelay
from agentkit.payments.escrow.terms import EscrowJob
from agentkit.payments.sender import Sender

log = logging.getLogger(__name__)

QUOTE_SECONDS = 600
"""Seconds in which a quote has to be opened."""

DELIVERY_SLACK = 10
"""How many times as long as expected a task may take before it counts as undelivered."""

MIN_DELIVERY = 3600
MAX_DELIVERY = 14 * 86400
"""Seconds between which the time for a delivery lies, whatever is expected."""

JUDGE_WINDOW = 3600
"""Seconds that the payer has to refuse a result that was submitted to the contract."""

ARBITER_WINDOW = 7 * 86400
"""Seconds that the arbiter has to decide."""

DEFAULT_BPS = 5000
"""What the provider gets of the price where the arbiter is silent, in 1/10000: half."""

SUBMIT_BEFORE = 900
"""Seconds before a delivery is due, from which on it is submitted to the contract.

Only for payers that have not accepted it until then.
"""


class EscrowBook:
    """What a provider node knows of the jobs it is paid for out of escrow.

    `arbiters` are those it trusts to decide, in which the zero address stands for nobody.  `sells`:
    somebody pays the gas of settling, as of the last `look`.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        *,
        arbiters: tuple[str, ...] = (terms.NOBODY,),
        relay: EscrowRelay | None = None,
    ) -> None:
        """Open the book of the node that `signer` signs for; it is stored in `journal`.

        `relay` settles without gas of this node's; without one the node pays for it.
        """
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._arbiters = tuple(arbiter.lower() for arbiter in arbiters)
        self._relay = relay
        self._is_relayed = relay is not None
        self.sells = True
        self._sender = Sender(journal, chain, signer, network)

    async def look(self) -> None:
        """See who would pay the gas of settling now: the relay, this node, or nobody."""
        self._is_relayed = self._relay is not None and await self._relay.is_there()
        try:
            has_gas = self._is_relayed or await self._chain.balance(self._signer.address) > 0
        except (StoreUnavailable, ProtocolBroken):
            has_gas = False
        if self.sells and not has_gas:
            log.warning("nothing is sold out of escrow: nobody would pay the gas of settling it")
        self.sells = has_gas

    def quote(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a signed quote for an attempt, as its payer asks; raises Refused."""
        if not self.sells:
            raise Refused("this node sells nothing out of escrow now: it could not claim the money")
        try:
            quote = self._quote_for(body)
            signature = self._signer.sign_quote(self._network.escrow_domain, quote)
            # Read back, so that nothing is offered that the payer or the contract cannot take.
            job = EscrowJob.read(EscrowJob(quote, signature).document())
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise Refused(f"this is not a valid request for a quote: {error!r}") from error
        if quote.arbiter.lower() not in self._arbiters:
            raise Refused(f"the arbiter {quote.arbiter} is not one this node trusts")
        return {**job.document(), "attempt": body["attempt"]}

    async def admit(self, body: Mapping[str, Any], attempt: str, task: str, at_most: Money) -> str:
        """Check that a task of `at_most` is paid for, and return its job's id; raises Refused."""
        job = self._read_own_job(body.get("escrow"), attempt)
        if job.quote.spec_hash.hex() != task:
            raise Refused("the money in escrow is for another task")
        if job.quote.price < at_most.units:
            raise Refused(f"{job.quote.price} units are in escrow and {at_most.units} are needed")

        job_id = job.id(self._network)
        # Only the chain shows that the money is locked; a payer's word for it is not enough.
        state, due = await terms.state_of(self._chain, self._network, job_id)
        now = time.time()
        if state != terms.FUNDED or now > due:
            raise Refused("no money is in escrow for this task now")
        if now > due - SUBMIT_BEFORE:
            raise Refused("too little time is left to deliver in")
        # A signed release is with the payer: it could bring it to the chain after the work.
        if await self._journal.commit(lambda tx: tx.get(r.GivenBack, job_id.hex())):
            raise Refused("this node has promised to take nothing for this attempt")
        return job_id.hex()

    async def accept(self, body: Mapping[str, Any]) -> None:
        """Store a payer's acceptance of what was delivered; raises Refused for a bad one."""
        attempt = str(body.get("attempt"))
        job = self._read_own_job(body, attempt)
        job_id = job.id(self._network)
        done = await self._delivered(attempt)
        if done is None or done.price is None:
            raise Refused("nothing was delivered for this attempt")
        if done.channel != job_id.hex():
            raise Refused("what was delivered is paid in another way")
        result = _digest_of(done)
        if (body.get("result"), body.get("pay")) != (result, done.price.units):
            raise Refused("the acceptance is for another result, or another price")

        accept = Accept(job_id, pay=done.price.units, result_hash=bytes.fromhex(result))
        earned = e.EscrowEarned(
            attempt=attempt,
            job=job.document(),
            pay=done.price,
            result=result,
            accept=self._check_signature(job, accept, body.get("accept")),
        )

        def store(tx: Transaction) -> None:
            earlier = tx.get(r.EarnedEscrow, attempt)
            if earlier is None or not earlier.accept:
                tx.append(e.NODE, earned)

        await self._journal.commit(store)

    async def settle(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Store a payer's acceptance, bring it to the chain, once, and return the transaction.

        Raises Refused.
        """
        await self.accept(body)
        attempt = str(body.get("attempt"))
        earned = await self._journal.commit(lambda tx: tx.get(r.EarnedEscrow, attempt))
        if earned is None:
            raise Refused("nothing was earned for this attempt")
        return {"attempt": earned.attempt, "transaction": await self._claim_accepted(earned)}

    async def give_back(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Sign that this node takes nothing for what it did not deliver; raises Refused.

        Only the payer may ask: it signs an acceptance over nothing, which shows who asks and is
        worth no money.
        """
        attempt = str(body.get("attempt"))
        job = self._read_own_job(body, attempt)
        job_id = job.id(self._network)
        zero = Accept(job_id, pay=0, result_hash=bytes(32))
        self._check_signature(job, zero, body.get("proof"))
        # A quote costs nothing, so only money that is locked may have something written.
        state, _ = await terms.state_of(self._chain, self._network, job_id)
        if not state:
            raise Refused("no money is in escrow for this attempt")

        def give_up(tx: Transaction) -> bool:
            """Write down that the attempt is given back; False if it may still be paid."""
            work = tx.get(r.Job, attempt)
            may_be_paid = (
                work is not None
                and work.state not in ("failed", "cancelled")
                and work.channel == job_id.hex()
            )
            if may_be_paid:
                return False
            # Written before the signature leaves, so that the attempt is never admitted again.
            if not tx.get(r.GivenBack, job_id.hex()):
                tx.append(e.NODE, e.EscrowGivenBack(attempt=attempt, id=job_id.hex()))
            return True

        if not await self._journal.commit(give_up):
            raise Refused("this attempt was delivered, or is being worked on")
        release = self._signer.sign_accept(self._network.escrow_domain, zero)
        return {"attempt": attempt, "release": release.hex()}

    async def watch(self) -> None:
        """Claim payments before they expire.

        What payers accepted is brought to the chain.  Where a payer has not said anything, the
        result is submitted to the contract before it is due, and the price is claimed when the
        payer's time to refuse is over.  A failure for one attempt keeps nothing from the others.
        """
        await self.look()
        for earned in await self._journal.commit(lambda tx: tx.every(r.EarnedEscrow)):
            if earned.accept and not earned.settled:
                await log_failure(self._claim_accepted(earned), f"attempt {earned.attempt[:12]}")
        for attempt, job in await self._journal.commit(_unaccepted):
            await log_failure(
                self._claim_unaccepted(attempt, EscrowJob.read(job)), f"attempt {attempt[:12]}"
            )

    # -- reading ---------------------------------------------------------------------------------

    def _quote_for(self, body: Mapping[str, Any]) -> Quote:
        """Return the quote that a payer asks for; raises LookupError, TypeError, ValueError."""
        now = int(time.time())
        expected = float(body["seconds"])
        seconds = min(max(DELIVERY_SLACK * expected, MIN_DELIVERY), MAX_DELIVERY)
        return Quote(
            payer=str(body["payer"]),
            provider=self._signer.address,
            arbiter=str(body["arbiter"]),
            token=self._network.token,
            price=int(body["price"]),
            deliver_by=now + int(seconds),
            judge_window=JUDGE_WINDOW,
            quote_expiry=now + QUOTE_SECONDS,
            arbiter_window=ARBITER_WINDOW,
            default_bps=DEFAULT_BPS,
            task_id=bytes.fromhex(str(body["attempt"])),
            spec_hash=bytes.fromhex(str(body["task"])),
        )

    def _read_own_job(self, document: Any, attempt: str) -> EscrowJob:
        """Return a job that this node has quoted for an attempt; raises Refused."""
        try:
            job = EscrowJob.read(document)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise Refused(f"this is not a valid escrow payment: {error!r}") from error
        is_own = job.quote.provider.lower() == self._signer.address.lower()
        if not is_own or not job.is_signed(self._network):
            raise Refused("this node has not quoted this")
        if job.quote.task_id.hex() != attempt:
            raise Refused("the money in escrow is for another attempt")
        return job

    def _check_signature(self, job: EscrowJob, accept: Accept, signature: object) -> str:
        """Return a signature, in hex, if the job's payer made it; raises Refused otherwise."""
        digest = typed_digest(self._network.escrow_domain, accept)
        try:
            signer = recover(digest, bytes.fromhex(str(signature)))
        except ValueError as error:
            raise Refused("the payer's acceptance cannot be read") from error
        if signer.lower() != job.quote.payer.lower():
            raise Refused("the acceptance is not signed by the payer")
        return str(signature)

    async def _delivered(self, attempt: str) -> r.Job | None:
        """Return the work on an attempt if it is done."""
        work = await self._journal.commit(lambda tx: tx.get(r.Job, attempt))
        return work if work and work.state == "done" else None

    # -- claiming --------------------------------------------------------------------------------

    async def _claim_accepted(self, earned: r.EarnedEscrow) -> str:
        """Settle a job on the chain by its payer's acceptance, and return the transaction."""
        job = EscrowJob.read(earned.job)
        pay = earned.pay or self._network.currency.zero()
        accept = Accept(
            job.id(self._network),
            pay=pay.units,
            result_hash=bytes.fromhex(earned.result),
        )
        payer = bytes.fromhex(earned.accept)
        own = self._signer.sign_accept(self._network.escrow_domain, accept)
        order = EscrowOrder.agreed(job, accept, payer=payer, provider=own)
        call = job.accept_call(accept, payer)
        return await self._settle(earned.attempt, job, "accept", call, order)

    async def _claim_unaccepted(self, attempt: str, job: EscrowJob) -> None:
        """Take the next step towards the price of a delivery that its payer has not accepted.

        Shortly before the delivery is due it is submitted to the contract.  From then on the payer
        has JUDGE_WINDOW seconds to refuse it; after them anybody may call `claimUnjudged`.
        """
        job_id = job.id(self._network)
        now = time.time()
        done = await self._delivered(attempt)
        state, due = await terms.state_of(self._chain, self._network, job_id)
        if state == terms.FUNDED and done and due - SUBMIT_BEFORE <= now <= due:
            await self._submit(attempt, job, result=bytes.fromhex(_digest_of(done)), now=now)
        elif state == terms.SUBMITTED and now > due:
            order = EscrowOrder(job=job.document())
            await self._settle(attempt, job, "unjudged", order.call(self._network), order)

    async def _submit(self, attempt: str, job: EscrowJob, *, result: bytes, now: float) -> None:
        """Submit a result's digest to the contract, and note until when the payer may refuse it."""
        data = job.call(f"submit({terms.QUOTE},bytes32)", result)
        await self._sender.send(f"submit:{attempt}", self._network.escrow, data)
        submitted = e.EscrowSubmitted(attempt=attempt, due=int(now) + job.quote.judge_window)
        await self._journal.commit(lambda tx: tx.append(e.NODE, submitted))

    async def _settle(
        self, attempt: str, job: EscrowJob, reason: str, call: bytes, order: EscrowOrder
    ) -> str:
        """Have a job settled, write down what was paid, and return the transaction.

        A facilitator gets the order; with gas of this node's own it is the call.

        Raises Refused when nobody pays for the gas, SettlementFailed when nothing was settled.
        """
        job_id = job.id(self._network)
        # What was brought to the chain and not written down, by whomever, is not brought again.
        receipt = await terms.settlement_on(self._chain, self._network, job_id)
        receipt = receipt or await self._relayed(order)
        receipt = receipt or await self._send(f"settle:{attempt}:{reason}", call)
        settlement = terms.settled_in(receipt, self._network, job_id)
        if settlement is None:
            raise SettlementFailed(f"transaction {receipt.transaction} settled nothing")

        to_provider, _ = settlement
        paid = Money(to_provider, self._network.currency)
        settled = e.EscrowSettled(attempt=attempt, paid=paid)

        def store(tx: Transaction) -> None:
            earned = tx.get(r.EarnedEscrow, attempt)
            if earned is None or not earned.settled:
                tx.append(e.NODE, settled)

        await self._journal.commit(store)
        return receipt.transaction

    async def _relayed(self, order: EscrowOrder) -> ChainReceipt | None:
        """Have a facilitator settle a job; None where none does, or it does not tell the truth.

        Raises StoreUnavailable: it may be under way.
        """
        if self._relay is None or not self._is_relayed:
            return None
        try:
            return await self._relay.settle(order)
        except (Refused, ProtocolBroken) as error:  # such as for a contract of an earlier version
            log.warning("%s", error)
            return None

    async def _send(self, intent: str, call: bytes) -> ChainReceipt:
        """Settle with gas of this node's own; raises Refused where it has none."""
        try:
            return await self._sender.send(intent, self._network.escrow, call)
        except InsufficientFunds as error:
            raise Refused(
                f"this node cannot claim: its own wallet {self._signer.address} is short of gas"
            ) from error


def _digest_of(done: r.Job) -> str:
    """Return the digest of what was delivered, which an acceptance names."""
    return result_digest([output.digest for output in done.outputs])


def _unaccepted(tx: Transaction) -> list[tuple[str, dict[str, Any]]]:
    """Return (attempt, job) of the unpaid deliveries that their payers have not accepted."""
    unaccepted = []
    for work in tx.every(r.Job):
        if work.state != "done" or not work.escrow:
            continue
        earned = tx.get(r.EarnedEscrow, work.attempt)
        if earned is None or not (earned.accept or earned.settled):
            unaccepted.append((work.attempt, work.escrow))
    return unaccepted
