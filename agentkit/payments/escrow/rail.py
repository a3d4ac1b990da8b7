"""The payer's rail: locks the price of one task before it is done, and pays when it is accepted.

quote (signed by the provider) -> open, on chain -> the task is done -> Accept, signed -> settled
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from agentkit.errors import InsufficientFunds, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Accept, ReceiveAuthorization
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.balance import check_balance
from agentkit.payments.budget import Exposure, paid_before
from agentkit.payments.escrow import terms
from agentkit.payments.escrow.close import NO_RESULT, EscrowCloser
from agentkit.payments.escrow.jobs import (
    book_open,
    holding_money,
    is_abandoned,
    may_be_accepted,
    opening_unknown,
)
from agentkit.payments.escrow.quotes import QuoteRequests
from agentkit.payments.escrow.restore import LostEscrows
from agentkit.payments.escrow.terms import NOBODY, EscrowJob
from agentkit.payments.gas import gas_fee
from agentkit.payments.intents import opening_intent
from agentkit.payments.sender import Sender

OPEN_GAS = 160_000
"""What opening a job costs at most, for the gas row of a plan."""

NONCE_BYTES = 24
"""How much of a job's id is the nonce of the authorization that opens it; zeros follow.

The contract expects this form, because tokens with keyed nonces take it, too.
"""

MIN_SECONDS_LEFT = 30
"""A quote that expires sooner than this is asked for anew."""


class EscrowRail:
    """Pays for one task at a time out of escrow; see `market.seams.Rail`.

    `arbiter` decides when a result is refused; the zero address stands for nobody.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        sender: Sender,
        *,
        arbiter: str = NOBODY,
        exposure: Exposure | None = None,
    ) -> None:
        """Make the rail of one wallet; without `exposure` what it locks has no limit."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._sender = sender
        self._exposure = exposure or Exposure()
        self._quotes = QuoteRequests(payer=signer.address, arbiter=arbiter, network=network)
        self._closer = EscrowCloser(journal, chain, network, sender)
        self._lost = LostEscrows(journal, chain, network, payer=signer.address)
        sender.on_final["escrow"] = self._book_opening

    @property
    def name(self) -> str:
        return "escrow"

    @property
    def pays(self) -> Pays:
        return "on_delivery"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        """Return the gas of opening one job for each task that `amounts` pay for."""
        jobs = 0
        for offer, amount in zip(offers, amounts, strict=True):
            price = max(offer.at_most.units, 1)
            jobs += -(-amount.units // price)  # rounded up
        return [await gas_fee(self._chain, self._network, jobs * OPEN_GAS, "open escrow")]

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        """Ask for the attempt's quote, or open the job that was quoted.

        So it is called twice for an attempt: the first call returns the request for a quote, and
        the second one locks the price.
        """
        # What an earlier process sent, or a restored journal lacks, is not locked a second time.
        await self._sender.recover()
        attempt = wanted.attempt
        await self._lost.find(attempt)

        escrow = await self._stored(attempt.id)
        if escrow and escrow.state == "quoted":
            # Our opening may have been mined although nobody told us.
            escrow = await self._read_opening(escrow)
        if escrow is None or await self._is_stale(escrow):
            return [self._quotes.request(offer, attempt)]
        if escrow.state == "quoted":
            await self._open(escrow, wanted)
        return []

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        """Return the attempt's job, which goes with the request.

        Raises InsufficientFunds when the job has to be opened first.
        """
        escrow = tx.get(r.Escrow, attempt.id)
        if escrow is None or escrow.state != "open":
            raise InsufficientFunds(f"no money is in escrow for attempt {attempt.id[:12]}")
        return Payment(rail=self.name, body={"escrow": escrow.job})

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        """Sign that a verified result is accepted, and return the message that brings it.

        Raises SettlementFailed without an open job, and for a price above the attempt's at most.
        """
        escrow = tx.get(r.Escrow, attempt.id)
        if escrow is None or escrow.state in ("quoted", "closed"):
            raise SettlementFailed(f"no money is in escrow for attempt {attempt.id[:12]}")
        if result.price > attempt.at_most:
            raise SettlementFailed(f"{result.price} is above the at most of {attempt.at_most}")
        if paid_before(tx, attempt.id) is None:
            escrow = self._accept(tx, escrow, attempt, result)
        receipt = Receipt.of(attempt, result, at=tx.now)
        return receipt, [self._request(escrow, "accept")]

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        """Return whether the attempt's job is open: its price may still go to the payee.

        The payee can submit its result to the contract and be paid without our acceptance.
        """
        escrow = tx.get(r.Escrow, attempt.id)
        return escrow is not None and escrow.state == "open"

    async def balance(self) -> dict[str, Money]:
        """Return what is locked with each provider node."""
        locked: dict[str, Money] = {}
        for escrow in await self._journal.commit(holding_money):
            label = f"escrow with {escrow.label}"
            locked[label] = locked.get(label, self._network.currency.zero()) + escrow.price
        return locked

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        """Return the messages that ask providers to settle what is accepted and refund the rest.

        Jobs whose run may still take a result are left open.
        """
        await self._lost.find()
        for escrow in await self._journal.commit(opening_unknown):
            await self._read_opening(escrow)
        now = time.time()

        def end_jobs(tx: Transaction) -> list[Message]:
            """Free what is reserved for abandoned jobs; returns the messages that end others."""
            for escrow in tx.every(r.Escrow):
                if is_abandoned(tx, escrow):
                    tx.append(e.WALLET, e.Unreserved(attempt=escrow.attempt))

            requests = []
            for escrow in holding_money(tx):
                if now - escrow.at < idle:
                    continue
                if escrow.accept:
                    requests.append(self._request(escrow, "settle"))
                elif not may_be_accepted(tx, escrow):
                    requests.append(self._request(escrow, "refund"))
            return requests

        return await self._journal.commit(end_jobs)

    async def insist(self, message: Message) -> str:
        """Do what the contract lets the payer do alone, because the provider does not answer."""
        return await self._closer.close_without_provider(str(message.body.get("attempt")))

    async def finish(self, answer: Message) -> None:
        """Take a quote, a settlement or a release from a provider; each of them is checked."""
        match answer.verb:
            case "quoted":
                await self._take_quote(answer)
            case "settled":
                await self._closer.take_settlement(answer)
            case "released":
                await self._closer.take_release(answer)

    # -- quotes ----------------------------------------------------------------------------------

    async def _stored(self, attempt: str) -> r.Escrow | None:
        return await self._journal.commit(lambda tx: tx.get(r.Escrow, attempt))

    async def _take_quote(self, answer: Message) -> None:
        """Store a quote that is what was asked for; no other quote is ever opened."""
        attempt, job = self._quotes.read_answer(answer)
        quoted = e.EscrowQuoted(
            attempt=attempt.id,
            id=job.id(self._network).hex(),
            provider=attempt.provider,
            provider_node=attempt.provider_node,
            payee=attempt.payee,
            price=attempt.at_most,
            job=job.document(),
        )
        await self._journal.commit(lambda tx: tx.append(e.WALLET, quoted))

    async def _is_stale(self, escrow: r.Escrow) -> bool:
        """Return whether a quote cannot be opened any more, and never was."""
        if escrow.state != "quoted":
            return False
        intent = opening_intent(escrow)
        opening = await self._journal.commit(lambda tx: tx.get(r.EvmTransaction, intent))
        if opening is not None:
            return opening.final and not opening.succeeded
        expiry = EscrowJob.read(escrow.job).quote.quote_expiry
        return time.time() > expiry - MIN_SECONDS_LEFT

    # -- opening ---------------------------------------------------------------------------------

    async def _open(self, escrow: r.Escrow, wanted: Wanted) -> None:
        """Lock the price of a quoted job, exactly once.

        Raises InsufficientFunds when the wallet holds less, and as `Sender.send`.
        """
        units = escrow.price.units
        await check_balance(
            self._chain, self._network, self._signer.address, units, purpose="an escrow"
        )

        # Once it is open, the payee can be paid without our acceptance.  So the price is reserved
        # in the transaction that signs.
        def check(tx: Transaction) -> None:
            wanted.reserve(tx)
            self._exposure.within(tx, escrow.payee, units, least=units)

        intent = opening_intent(escrow)
        data = self._opening_call(EscrowJob.read(escrow.job))
        try:
            await self._sender.send(intent, self._network.escrow, data, check=check)
        except SettlementFailed:
            # Anybody may bring our signed opening to the chain; then our own call reverts.
            if (await self._read_opening(escrow)).state == "quoted":
                raise

    def _opening_call(self, job: EscrowJob) -> bytes:
        """Return the signed contract call that opens a job.

        The authorization's nonce is the job's own id: the token takes a nonce once (EIP-3009), so
        a job's price cannot be locked twice.
        """
        authorization = ReceiveAuthorization(
            payer=self._signer.address,
            payee=self._network.escrow,
            units=job.quote.price,
            valid_before=job.quote.quote_expiry,
            nonce=job.id(self._network)[:NONCE_BYTES].ljust(32, b"\0"),
        )
        signature = self._signer.sign_authorization(self._network.token_domain, authorization)
        return job.call(
            terms.OPEN,
            *abi.vrs(job.signature),
            authorization.valid_before,
            *abi.vrs(signature),
        )

    async def _read_opening(self, escrow: r.Escrow) -> r.Escrow:
        """Book a job that is open on the chain, whoever opened it, and return it as it stands."""
        job_id = bytes.fromhex(escrow.id)
        state, _ = await terms.state_of(self._chain, self._network, job_id)
        if state:
            await self._journal.commit(lambda tx: book_open(tx, escrow.attempt, escrow.id))
        return await self._stored(escrow.attempt) or escrow

    def _book_opening(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Book what the contract logged as locked; raises SettlementFailed if it logged nothing.

        A transaction can succeed without effect; only the contract's own log shows the opening.
        """
        _, attempt, job = intent.split(":")
        topics = (abi.OPENED, bytes.fromhex(job))
        for log in receipt.logs:
            is_contract = log.address.lower() == self._network.escrow.lower()
            if is_contract and log.topics[:2] == topics:
                book_open(tx, attempt, job)
                return
        raise SettlementFailed(f"transaction {receipt.transaction} opened no escrow")

    # -- paying ----------------------------------------------------------------------------------

    def _accept(
        self, tx: Transaction, escrow: r.Escrow, attempt: Attempt, result: Result
    ) -> r.Escrow:
        """Sign, once, that a result is accepted at its price; returns the job as it then stands.

        The signature is written in the caller's transaction, before it can leave.
        """
        job_id = EscrowJob.read(escrow.job).id(self._network)
        accept = Accept(job_id, pay=result.price.units, result_hash=bytes.fromhex(result.digest))
        signature = self._signer.sign_accept(self._network.escrow_domain, accept)
        accepted = e.EscrowAccepted(
            attempt=attempt.id,
            amount=result.price,
            result=result.digest,
            signature=signature.hex(),
        )
        tx.append(e.WALLET, accepted)
        return tx.get(r.Escrow, attempt.id) or escrow

    def _request(self, escrow: r.Escrow, verb: str) -> Message:
        """Return a message about a job: `accept`, `settle` or `refund`.

        It carries our acceptance.  Where there is none, it carries our signature under an
        acceptance over nothing, which shows who asks and is worth no money.
        """
        body: dict[str, Any] = {**escrow.job, "attempt": escrow.attempt}
        if escrow.accept:
            body |= {"pay": escrow.paid, "result": escrow.result, "accept": escrow.accept}
        else:
            body["proof"] = self._proof(escrow).hex()
        return Message(
            rail=self.name,
            provider=escrow.provider,
            provider_node=escrow.provider_node,
            verb=verb,
            body=body,
        )

    def _proof(self, escrow: r.Escrow) -> bytes:
        """Return the payer's signature under an acceptance over nothing."""
        job_id = EscrowJob.read(escrow.job).id(self._network)
        zero = Accept(job_id, pay=0, result_hash=NO_RESULT)
        return self._signer.sign_accept(self._network.escrow_domain, zero)
