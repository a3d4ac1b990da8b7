"""Sells by the scheme `exact`: a payment is settled before the work, and answered once.

402 -> payment presented -> taken (durable) -> settled (the chain shows it) -> done -> answered

A payment is settled before the work, because one balance can be shown with many payments at once
and all of them verify.  The answer is kept under the payment and its identifier: presented again
with the same request, it is given again, without work or payment.  A payment belongs to the first
request it came with (method, path, body).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from contextlib import AsyncExitStack
from typing import Any
from weakref import WeakValueDictionary

from aiohttp import web

from agentkit.errors import ProviderError, StateError
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.market.x402 import RESPONSE, Presented, Requirement, Settled
from agentkit.money import Money
from agentkit.payments.x402.paywall import (
    PAID,
    PAY_WITHIN,
    PRIVATE,
    Price,
    Sale,
    answered_by,
    refuse,
    request_digest,
    with_receipt,
)
from agentkit.payments.x402.proof import ExpectedTransfer, has_moved
from agentkit.payments.x402.remote import Facilitation

MIN_VALIDITY = 6
MAX_VALIDITY = 86_400
"""Seconds from now between which an authorization has to end: time to settle, and no longer."""

log = logging.getLogger(__name__)


class ExactSeller:
    """Sells requests by `exact`; see `payments.x402.paywall.SellerScheme`.

    What was taken and answered is stored in `journal`, in the stream of a provider node.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        network: Network,
        facilitator: Facilitation,
        *,
        payee: str,
    ) -> None:
        """Have payments to `payee` settled by `facilitator`, and look for them on `chain`."""
        self._journal = journal
        self._chain = chain
        self._network = network
        self._facilitator = facilitator
        self._payee = payee
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def name(self) -> str:
        return "exact"

    def requirement(self, price: Price) -> Requirement:
        """Return the requirement of a request's flat price."""
        return Requirement.on(
            self._network, self._payee, price.flat.units, timeout=PAY_WITHIN, flow="upfront"
        )

    async def sell(self, sale: Sale) -> web.StreamResponse:
        """Answer a request that came with a payment."""
        presented = Presented.read(sale.header)
        taken = _taken(presented, await request_digest(sale.request, presented))

        # The same payment may be presented many times at once; one of them does the work, and the
        # others wait for its answer.  Locks are taken in one order, so they cannot deadlock.
        async with AsyncExitStack() as stack:
            for name in filter(None, (presented.identifier, taken.payment)):
                await stack.enter_async_context(self._locks.setdefault(name, asyncio.Lock()))
            try:
                return await self._sell_once(sale, presented, taken)
            except _Unpaid as unpaid:
                return sale.unpaid(str(unpaid))
            except (StateError, ProviderError) as error:
                log.warning("payment %s: %s", taken.payment, error)
                return refuse(
                    503, "whether it is paid cannot be told now; present the same payment again"
                )

    async def _sell_once(
        self, sale: Sale, presented: Presented, taken: e.PaymentTaken
    ) -> web.StreamResponse:
        """Take a payment through the steps that it has not been through yet, and answer.

        Each step is written down when it is done, so after a crash the same payment goes on
        where it was.
        """
        paid_request = await self._journal.commit(lambda tx: _stored_request(tx, taken))
        if paid_request and paid_request.request != taken.request:
            return refuse(409, "this payment, or its identifier, belongs to another request")
        if paid_request is None:
            # Everything that can be refused is refused before the payment is settled.
            await self._check(presented, sale.requirement)
            refusal = await sale.refusal()
            if refusal is not None:
                return refusal
            await self._journal.commit(lambda tx: tx.append(e.NODE, taken))
            paid_request = r.PaidRequest(**taken.model_dump())
        if not paid_request.transaction:
            # It was taken before, but by its payer and nonce alone: the rest may have changed.
            _check_terms(presented, sale.requirement)
            paid_request = await self._settle(presented, sale.requirement, paid_request)
        if not paid_request.status:
            return await self._do_work(sale, paid_request, presented)
        return await self._repeat_answer(paid_request, presented)

    # -- payments --------------------------------------------------------------------------------

    async def _check(self, presented: Presented, requirement: Requirement) -> None:
        """Raise _Unpaid for a payment that would not settle, before anything is written of it."""
        _check_terms(presented, requirement)
        _check_times(presented)
        verified = await self._facilitator.verify(presented, requirement)
        if not verified.is_valid:
            raise _Unpaid(verified.invalid_reason or "the payment is not valid")

    async def _settle(
        self, presented: Presented, requirement: Requirement, paid_request: r.PaidRequest
    ) -> r.PaidRequest:
        """Have a payment settled, and write that down once the chain shows it.

        Raises _Unpaid when it does not, whatever the facilitator says.
        """
        transfer = ExpectedTransfer.of(presented.payload.authorization)
        # With this server's own key, so that a second server cannot be shown the same payment.
        keyed = requirement.with_key(paid_request.settlement)
        settled = await self._facilitator.settle(presented, keyed)
        if not await self._is_on_chain(settled, transfer):
            raise _Unpaid(settled.error_reason or "the chain does not show the payment")

        transaction = settled.transaction
        event = e.PaymentSettled(payment=paid_request.payment, transaction=transaction)
        paid = e.RequestPaid(
            payment=paid_request.payment,
            scheme=self.name,
            amount=Money(transfer.units, self._network.currency),
        )

        def store(tx: Transaction) -> None:
            tx.append(e.NODE, event)
            tx.append(e.NODE, paid)

        await self._journal.commit(store)
        return paid_request.model_copy(update={"transaction": transaction})

    async def _is_on_chain(self, settled: Settled, transfer: ExpectedTransfer) -> bool:
        """Return whether the transaction that a facilitator names shows the payment."""
        if not settled.success or settled.network != self._network.id:
            return False
        receipt = await self._chain.receipt(settled.transaction)
        return receipt is not None and has_moved(receipt, self._network, transfer)

    # -- answers ---------------------------------------------------------------------------------

    async def _do_work(
        self, sale: Sale, paid_request: r.PaidRequest, presented: Presented
    ) -> web.StreamResponse:
        """Do what was paid for and keep the answer.

        A failure of the server's own (5xx) or a full queue (429) is not kept: they may pass, so
        the same payment may ask again.  Only an answer that is no error has a receipt.
        """
        sale.request[PAID] = paid_request.payment
        response = await answered_by(sale.handler, sale.request)
        receipt: dict[str, Any] = {}
        if response.status < 400:
            payer = presented.payload.authorization.sender
            receipt = sale.receipt(payer, paid_request.transaction)
        if response.status < 500 and response.status != 429:
            await self._keep_answer(paid_request, response, receipt)
        response.headers.update(self._payment_headers(paid_request, presented, receipt))
        return response

    async def _keep_answer(
        self, paid_request: r.PaidRequest, response: web.Response, receipt: dict[str, Any]
    ) -> None:
        """Store an answer under its payment, with the receipt that it was given with."""
        body = bytes(response.body or b"")  # type: ignore[arg-type]  # bytes, as was checked
        answered = e.PaymentAnswered(
            payment=paid_request.payment,
            status=response.status,
            media_type=response.headers.get("Content-Type", ""),
            digest=hashlib.sha256(body).hexdigest(),
        )

        def store(tx: Transaction) -> None:
            tx.put_blob(body)
            tx.append(e.NODE, answered)
            if receipt:
                tx.append(e.NODE, e.ReceiptIssued(payment=answered.payment, receipt=receipt))

        await self._journal.commit(store)

    async def _repeat_answer(
        self, paid_request: r.PaidRequest, presented: Presented
    ) -> web.Response:
        """Return a kept answer again."""

        def read(tx: Transaction) -> tuple[bytes | None, r.IssuedReceipt | None]:
            issued = tx.get(r.IssuedReceipt, paid_request.payment)
            return tx.get_blob(paid_request.digest), issued

        body, issued = await self._journal.commit(read)
        headers: dict[str, str] = {}
        if paid_request.media_type:
            headers["Content-Type"] = paid_request.media_type
        receipt = issued.receipt if issued else {}
        headers |= self._payment_headers(paid_request, presented, receipt)
        return web.Response(body=body or b"", status=paid_request.status, headers=headers)

    def _payment_headers(
        self, paid_request: r.PaidRequest, presented: Presented, receipt: dict[str, Any]
    ) -> dict[str, str]:
        """Return the headers that say what became of the payment, and that forbid caching."""
        authorization = presented.payload.authorization
        settled = Settled(
            success=True,
            transaction=paid_request.transaction,
            network=self._network.id,
            payer=authorization.sender,
            amount=authorization.value,
        )
        return {RESPONSE: with_receipt(settled, receipt).header(), **PRIVATE}


class _Unpaid(Exception):
    """A payment that did not arrive, and why; it is answered with the 402."""


def _taken(presented: Presented, request: str) -> e.PaymentTaken:
    """Return the event that a payment was taken for a request, given by its digest.

    `settlement` is this server's key at the facilitator; see `Requirement.with_key`.
    """
    return e.PaymentTaken(
        payment=presented.payload.authorization.key,
        identifier=presented.identifier,
        request=request,
        settlement=secrets.token_hex(16),
    )


def _stored_request(tx: Transaction, taken: e.PaymentTaken) -> r.PaidRequest | None:
    """Return the request that a payment came with before, or one of the same identifier."""
    paid_request = tx.get(r.PaidRequest, taken.payment)
    if paid_request is None and taken.identifier:
        name = tx.get(r.PaymentName, taken.identifier)
        paid_request = tx.get(r.PaidRequest, name.payment) if name else None
    return paid_request


def _check_terms(presented: Presented, required: Requirement) -> None:
    """Raise _Unpaid for a payment that does not pay what is required."""
    accepted = presented.accepted
    authorization = presented.payload.authorization
    if (accepted.scheme, accepted.network) != (required.scheme, required.network):
        raise _Unpaid("the payment is for another network or scheme")
    if accepted.asset.lower() != required.asset.lower():
        raise _Unpaid("the payment is in another asset")
    if {accepted.pay_to.lower(), authorization.to.lower()} != {required.pay_to.lower()}:
        raise _Unpaid("the payment is to somebody else")
    if {accepted.amount, authorization.value} != {required.amount}:
        raise _Unpaid("the payment is of another amount")


def _check_times(presented: Presented) -> None:
    """Raise _Unpaid for a payment that is not good now, or that ends too early or too late."""
    authorization = presented.payload.authorization
    now = time.time()
    if not now + MIN_VALIDITY <= int(authorization.valid_before) <= now + MAX_VALIDITY:
        raise _Unpaid(
            f"the payment has to be valid for {MIN_VALIDITY} to {MAX_VALIDITY} seconds from now"
        )
    if int(authorization.valid_after) > now:
        raise _Unpaid("the payment is not valid yet")
