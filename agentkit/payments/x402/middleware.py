"""The server's half: what is priced is answered once it is paid, and once for each payment.

402 -> payment presented -> taken (durable) -> settled (the chain shows it) -> done -> answered

Settling comes before the work, because a balance that was verified can be shown sixteen times at
once.  The answer is kept by the payment and by its identifier: presented again with the same
request, it is given again, without work or payment.  A payment belongs to the first request it
came with (method, path, body).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any
from weakref import WeakValueDictionary

from aiohttp import web

from agentkit.errors import ProtocolBroken, ProviderError, StateError
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.market.x402 import (
    IDENTIFIER,
    IDENTIFIER_SCHEMA,
    REQUIRED,
    RESPONSE,
    SIGNATURE,
    VERSION,
    Challenge,
    Presented,
    Requirement,
    Settled,
)
from agentkit.money import Money
from agentkit.payments.x402.proof import Due, has_moved
from agentkit.payments.x402.remote import Facilitator

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Free = Callable[[web.Request], Awaitable[bool]]
Refusal = Callable[[web.Request], Awaitable[web.Response | None]]

PAY_WITHIN = 120
"""Seconds that a payer is given to pay in."""

SOONEST, LATEST = 6, 86_400
"""Seconds from now between which an authorization has to end: time to settle, and no longer."""

PAID: web.RequestKey[str] = web.RequestKey("paid", str)
"""Where a request that was paid for says by which payment."""

PRIVATE = {"Cache-Control": "private, no-store"}

log = logging.getLogger(__name__)


class Paywall:
    """Puts a price on routes of an aiohttp application: `middlewares=[paywall.middleware]`.

    `prices` by method and path, such as `POST /task`; `payee` is who is paid; `free` says which
    requests are let through all the same.  `refusal` returns the answer to a request that would be
    refused whoever pays for it.  It is asked when a payment would settle and has not yet: nobody
    pays for a refusal, and nobody who does not pay causes the work of finding out.

    What was taken and answered is in the stream of a provider node, in `journal`.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        network: Network,
        facilitator: Facilitator,
        *,
        payee: str,
        prices: Mapping[str, Money],
        free: Free | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        self._journal = journal
        self._chain = chain
        self._network = network
        self._facilitator, self._payee = facilitator, payee
        self._prices = prices
        self._free = free
        self._refusal = refusal
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def middleware(self) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
        """The middleware of an aiohttp application."""

        @web.middleware
        async def paid(request: web.Request, handler: Handler) -> web.StreamResponse:
            price = self._prices.get(f"{request.method} {request.path}")
            if price is None or (self._free and await self._free(request)):
                return await handler(request)
            return await self._sell(request, handler, price)

        return paid

    async def _sell(
        self, request: web.Request, handler: Handler, price: Money
    ) -> web.StreamResponse:
        requirement = self._requirement(price)
        try:
            presented = _presented(request)
            if presented is None:
                return self._ask(request, requirement, "this request has to be paid for")
            taken = _taken(presented, await _digest(request, presented))
        except ProtocolBroken as error:
            return _refusal(400, str(error))
        async with AsyncExitStack() as stack:
            for name in filter(None, (presented.identifier, taken.payment)):
                await stack.enter_async_context(self._locks.setdefault(name, asyncio.Lock()))
            try:
                return await self._sell_once(request, handler, presented, requirement, taken)
            except _Unpaid as unpaid:
                return self._ask(request, requirement, str(unpaid))
            except (StateError, ProviderError) as error:
                log.warning("payment %s: %s", taken.payment, error)
                return _refusal(
                    503, "whether it is paid cannot be told now; present the same payment again"
                )

    async def _sell_once(
        self,
        request: web.Request,
        handler: Handler,
        presented: Presented,
        requirement: Requirement,
        taken: e.PaymentTaken,
    ) -> web.StreamResponse:
        """Settle, do and answer what is not settled, done and answered yet."""
        known = await self._journal.commit(lambda tx: _known(tx, taken))
        if known and known.request != taken.request:
            return _refusal(409, "this payment, or its identifier, belongs to another request")
        if known is None:
            await self._check(presented, requirement)
            refused = await self._refusal(request) if self._refusal else None
            if refused is not None:
                return refused
            await self._journal.commit(lambda tx: tx.append(e.NODE, taken))
            known = r.PaidRequest(**taken.model_dump())
        if not known.transaction:
            known = await self._settle(presented, requirement, known)
        if not known.status:
            return await self._do(request, handler, known, presented)
        return await self._answer(known, presented)

    # -- paid? -----------------------------------------------------------------------------------

    async def _check(self, presented: Presented, requirement: Requirement) -> None:
        """Refuse a payment that would not settle, before anything is written of it."""
        if wrong := _mismatch(presented, requirement):
            raise _Unpaid(wrong)
        verified = await self._facilitator.verify(presented, requirement)
        if not verified.is_valid:
            raise _Unpaid(verified.invalid_reason or "the payment is not valid")

    async def _settle(
        self, presented: Presented, requirement: Requirement, known: r.PaidRequest
    ) -> r.PaidRequest:
        """Have a payment put on the chain and see it there, whatever the facilitator says."""
        due = Due.of(presented.payload.authorization)
        keyed = requirement.with_key(known.settlement)
        settled = await self._facilitator.settle(presented, keyed)
        if not await self._shows(settled, due):
            raise _Unpaid(settled.error_reason or "the chain does not show the payment")
        paid = e.PaymentSettled(payment=known.payment, transaction=settled.transaction)
        await self._journal.commit(lambda tx: tx.append(e.NODE, paid))
        return known.model_copy(update={"transaction": settled.transaction})

    async def _shows(self, settled: Settled, due: Due) -> bool:
        """Whether the chain shows the payment in the transaction that a facilitator names."""
        if not settled.success or settled.network != self._network.id:
            return False
        receipt = await self._chain.receipt(settled.transaction)
        return receipt is not None and has_moved(receipt, self._network, due)

    # -- answers ---------------------------------------------------------------------------------

    async def _do(
        self, request: web.Request, handler: Handler, known: r.PaidRequest, presented: Presented
    ) -> web.StreamResponse:
        """Do what was paid for and keep the answer.

        What may pass, a failure of the server's own or a queue that is full, is not kept: the same
        payment asks for it again.
        """
        request[PAID] = known.payment
        try:
            response = await handler(request)
        except web.HTTPException as said:
            response = said
        if not isinstance(response, web.Response) or not isinstance(response.body, bytes | None):
            raise TypeError("what is paid for is answered as one body, which can be kept")
        if response.status < 500 and response.status != 429:
            await self._keep(known, response)
        response.headers.update(self._told(known, presented))
        return response

    async def _keep(self, known: r.PaidRequest, response: web.Response) -> None:
        body = bytes(response.body or b"")  # type: ignore[arg-type]  # bytes, as was checked
        answered = e.PaymentAnswered(
            payment=known.payment,
            status=response.status,
            media_type=response.headers.get("Content-Type", ""),
            digest=hashlib.sha256(body).hexdigest(),
        )

        def work(tx: Transaction) -> None:
            tx.put_blob(body)
            tx.append(e.NODE, answered)

        await self._journal.commit(work)

    async def _answer(self, known: r.PaidRequest, presented: Presented) -> web.Response:
        """Give a kept answer again."""
        body = await self._journal.commit(lambda tx: tx.get_blob(known.digest))
        headers = {"Content-Type": known.media_type} if known.media_type else {}
        headers |= self._told(known, presented)
        return web.Response(body=body or b"", status=known.status, headers=headers)

    def _told(self, known: r.PaidRequest, presented: Presented) -> dict[str, str]:
        """Return what an answer says of its payment, and that it is nobody else's."""
        paid = presented.payload.authorization
        settled = Settled(
            success=True,
            transaction=known.transaction,
            network=self._network.id,
            payer=paid.sender,
            amount=paid.value,
        )
        return {RESPONSE: settled.header(), **PRIVATE}

    def _ask(self, request: web.Request, requirement: Requirement, why: str) -> web.Response:
        """Return the 402 that says how to pay."""
        challenge = Challenge(
            x402_version=VERSION,
            error=why,
            resource={"url": str(request.url)},
            accepts=[requirement.document()],
            extensions={IDENTIFIER: {"info": {"required": False}, "schema": IDENTIFIER_SCHEMA}},
        )
        answer = _refusal(402, why)
        answer.headers[REQUIRED] = challenge.header()
        return answer

    def _requirement(self, price: Money) -> Requirement:
        return Requirement.on(
            self._network, self._payee, price.units, timeout=PAY_WITHIN, flow="upfront"
        )


class _Unpaid(Exception):
    """A payment that did not arrive, and why; it is answered with the 402."""


def _presented(request: web.Request) -> Presented | None:
    """Return the payment of a request, None without one; raises ProtocolBroken."""
    headers = request.headers.getall(SIGNATURE, [])
    if len(headers) > 1:
        raise ProtocolBroken(f"one {SIGNATURE} header is enough")
    return Presented.read(headers[0]) if headers else None


async def _digest(request: web.Request, presented: Presented) -> str:
    """Return the digest of what a payment is for, with the payer's own name for it."""
    body = await request.read()
    parts = [request.method, request.path_qs, presented.identifier]
    head = json.dumps(parts).encode()
    return hashlib.sha256(head + b"\n" + hashlib.sha256(body).digest()).hexdigest()


def _taken(presented: Presented, request: str) -> e.PaymentTaken:
    payment = presented.payload.authorization.key
    return e.PaymentTaken(
        payment=payment,
        identifier=presented.identifier,
        request=request,
        settlement=secrets.token_hex(16),
    )


def _known(tx: Transaction, taken: e.PaymentTaken) -> r.PaidRequest | None:
    """Return the request that a payment came with before, or one of the same identifier."""
    known = tx.get(r.PaidRequest, taken.payment)
    if known is None and taken.identifier:
        name = tx.get(r.PaymentName, taken.identifier)
        known = tx.get(r.PaidRequest, name.payment) if name else None
    return known


def _mismatch(presented: Presented, wanted: Requirement) -> str:
    """Return why a payment is not what is asked for, "" when it is."""
    accepted, paid = presented.accepted, presented.payload.authorization
    if (accepted.scheme, accepted.network) != (wanted.scheme, wanted.network):
        return "the payment is for another network or scheme"
    if accepted.asset.lower() != wanted.asset.lower():
        return "the payment is in another asset"
    if {accepted.pay_to.lower(), paid.to.lower()} != {wanted.pay_to.lower()}:
        return "the payment is to somebody else"
    if {accepted.amount, paid.value} != {wanted.amount}:
        return "the payment is of another amount"
    now = time.time()
    if not now + SOONEST <= int(paid.valid_before) <= now + LATEST:
        return f"the payment has to be valid for {SOONEST} to {LATEST} seconds from now"
    return "" if int(paid.valid_after) <= now else "the payment is not valid yet"


def _refusal(status: int, why: str) -> web.Response:
    error: dict[str, Any] = {"error": {"type": "PaymentRequired", "message": why, "code": status}}
    answer = web.json_response(error, status=status, headers=PRIVATE)
    if status == 503:
        answer.headers["Retry-After"] = "1"
    return answer
