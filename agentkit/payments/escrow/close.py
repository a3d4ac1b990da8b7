"""The payer's end of a job in escrow: settled by its provider, given back, or forced alone."""

from __future__ import annotations

import time

from agentkit.errors import ProtocolBroken
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Accept, recover, typed_digest
from agentkit.market.attempt import Message
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.seams import Transaction
from agentkit.payments.escrow import terms
from agentkit.payments.escrow.jobs import book_settlement
from agentkit.payments.escrow.terms import NOBODY, QUOTE, EscrowJob
from agentkit.payments.sender import Sender

NO_RESULT = bytes(32)
"""The result of an acceptance that pays nothing."""


class EscrowCloser:
    """Ends the jobs of one wallet, and books what the contract paid and refunded.

    What settles a job has the intent `settle:ATTEMPT:REASON`.
    """

    def __init__(
        self, journal: Journal, chain: ChainClient, network: Network, sender: Sender
    ) -> None:
        """Take the sender's final `settle` transactions into the books from here on."""
        self._journal = journal
        self._chain = chain
        self._network = network
        self._sender = sender
        sender.on_final["settle"] = self._book_settled

    async def close_without_provider(self, attempt: str) -> str:
        """Do what the contract lets the payer do alone with the job of an attempt.

        What that is depends on the job's state, and on whether its time is over
        (TaskEscrow.vy).  Returns in words what was done or until when to wait, "" for nothing.
        """
        escrow = await self._stored(attempt)
        if escrow is None:
            return ""
        job = EscrowJob.read(escrow.job)
        state, due = await terms.state_of(self._chain, self._network, job.id(self._network))
        is_over = time.time() > due

        match state:
            case terms.FUNDED if is_over:
                await self._settle(escrow, job, "refundUndelivered")
                return "refunded, nothing was delivered in time"
            case terms.DISPUTED if is_over:
                await self._settle(escrow, job, "expireDispute")
                return "divided as quoted, the arbiter was silent"
            case terms.FUNDED | terms.DISPUTED:
                until = time.strftime("%Y-%m-%d %H:%M", time.localtime(due))
                return f"locked until {until}"
            # A submitted result that nobody refuses is paid in full when its window is over.
            case terms.SUBMITTED if not is_over and not escrow.accept:
                return await self._dispute(escrow, job)
            # Its provider, or anybody after a deadline, has settled it without telling us.
            case terms.PAID | terms.REFUNDED:
                return await self._book_end_on_chain(escrow, job)
        return ""

    async def take_settlement(self, answer: Message) -> None:
        """Book a settlement that the provider brought to the chain, as the chain shows it.

        Raises ProtocolBroken for a job that is not ours, and when the chain does not show it.
        """
        escrow = await self._stored(str(answer.body.get("attempt")))
        if escrow is None:
            raise ProtocolBroken("it settles what nobody bought", provider=answer.provider)
        receipt = await self._chain.receipt(str(answer.body.get("transaction")))
        job_id = EscrowJob.read(escrow.job).id(self._network)
        if receipt is None or terms.settled_in(receipt, self._network, job_id) is None:
            raise ProtocolBroken("the chain does not show it", provider=answer.provider)
        await self._book(escrow, receipt)

    async def take_release(self, answer: Message) -> None:
        """Bring the provider's signature that it takes nothing to the chain.

        Raises ProtocolBroken when the provider did not sign it.
        """
        escrow = await self._stored(str(answer.body.get("attempt")))
        if escrow is None or escrow.state != "open":
            return
        job = EscrowJob.read(escrow.job)
        release = Accept(job.id(self._network), pay=0, result_hash=NO_RESULT)
        try:
            signature = bytes.fromhex(str(answer.body.get("release")))
        except ValueError:
            signature = b""
        digest = typed_digest(self._network.escrow_domain, release)
        if recover(digest, signature).lower() != job.quote.provider.lower():
            raise ProtocolBroken("its release is not signed by it", provider=answer.provider)

        intent = f"settle:{escrow.attempt}:refund"
        data = job.accept_call(release, signature)
        await self._sender.send(intent, self._network.escrow, data)

    # -- inside ----------------------------------------------------------------------------------

    async def _stored(self, attempt: str) -> r.Escrow | None:
        return await self._journal.commit(lambda tx: tx.get(r.Escrow, attempt))

    async def _settle(self, escrow: r.Escrow, job: EscrowJob, function: str) -> None:
        """Call a function of the contract that settles a job whose time is over."""
        data = job.call(f"{function}({QUOTE})")
        intent = f"settle:{escrow.attempt}:{function}"
        await self._sender.send(intent, self._network.escrow, data)

    async def _dispute(self, escrow: r.Escrow, job: EscrowJob) -> str:
        """Refuse a submitted result that was not accepted; without an arbiter nobody can."""
        if job.quote.arbiter == NOBODY:
            return "submitted without our acceptance, and nobody was named to decide"
        no_reason = bytes(32)
        data = job.call(f"dispute({QUOTE},bytes32)", no_reason)
        await self._sender.send(f"dispute:{escrow.attempt}", self._network.escrow, data)
        return "disputed; the arbiter decides"

    async def _book_end_on_chain(self, escrow: r.Escrow, job: EscrowJob) -> str:
        """Book a job that somebody else settled, from the contract's own log of it."""
        receipt = await terms.settlement_on(self._chain, self._network, job.id(self._network))
        if receipt is None:
            raise ProtocolBroken("the chain does not show its end", provider=escrow.provider)
        await self._book(escrow, receipt)
        return "the settlement was found on the chain"

    async def _book(self, escrow: r.Escrow, receipt: ChainReceipt) -> None:
        await self._journal.commit(lambda tx: book_settlement(tx, escrow, receipt, self._network))

    def _book_settled(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Book what a final `settle` transaction of ours paid and refunded."""
        escrow = tx.get(r.Escrow, intent.split(":")[1])
        if escrow:
            book_settlement(tx, escrow, receipt, self._network)
