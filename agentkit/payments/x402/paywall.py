"""A server's paywall: a priced request is answered when it is paid, by any of the seller's schemes.

A request without payment is answered with 402 and every way to pay for it.  One with a payment
goes to the scheme that the payment names, which checks it, has the work done and charges for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from agentkit.errors import ProtocolBroken
from agentkit.market.offer_receipt import EXTENSION as OFFER_RECEIPT
from agentkit.market.x402 import (
    IDENTIFIER,
    IDENTIFIER_SCHEMA,
    REQUIRED,
    SIGNATURE,
    VERSION,
    Challenge,
    Payment402,
    Requirement,
    Settled,
)
from agentkit.money import Money
from agentkit.payments.x402.bazaar import BAZAAR, Declaration
from agentkit.payments.x402.issuer import Issuer, receipt_extension, resource_url

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Free = Callable[[web.Request], Awaitable[bool]]
Refusal = Callable[[web.Request], Awaitable[web.Response | None]]

PAY_WITHIN = 120
"""Seconds that a payer is given to pay in."""

PAID: web.RequestKey[str] = web.RequestKey("paid", str)
"""The key of a paid request under which its payment stands."""

CHARGE: web.RequestKey[Money] = web.RequestKey("charge", Money)
"""The key of a paid request under which its handler puts what it came to, if it is metered."""

PRIVATE = {"Cache-Control": "private, no-store"}
"""An answer belongs to one payer, so no cache may give it to another."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a request costs: `flat` if it is paid in advance, up to `at_most` if it is metered."""

    flat: Money
    at_most: Money

    @classmethod
    def of(cls, amount: Money) -> Price:
        """Return the price of a request that always costs the same."""
        return cls(flat=amount, at_most=amount)


Pricing = Callable[[web.Request], Awaitable[Price]]
"""Returns what a request costs; it may raise what the request would be refused with."""


@dataclass(frozen=True, slots=True)
class Sale:
    """A request that came with a payment, as a scheme sells it.

    `header` is the payment as it was sent, `requirement` what it has to pay, `handler` does the
    work.  `refusal` is the answer to a request that would be refused whoever pays for it, None
    where it would be done.
    """

    request: web.Request
    header: str
    requirement: Requirement
    handler: Handler
    refusal: Callable[[], Awaitable[web.Response | None]]
    ask_to_pay: Callable[[str, Mapping[str, Any]], web.Response]
    issuer: Issuer | None = None

    def receipt(self, payer: str, transaction: str = "") -> dict[str, Any]:
        """Return a signed receipt for who paid for this request and was served, {} without one."""
        url = resource_url(self.request)
        return self.issuer.receipt(url, payer, transaction) if self.issuer and url else {}

    def unpaid(self, reason: str, **extra: Any) -> web.Response:
        """Return the 402 that says why this payment did not count.

        `extra` is added to what the requirement of this scheme says.
        """
        return self.ask_to_pay(reason, extra)


@dataclass(frozen=True, slots=True)
class _Ask:
    """A request that has to be paid for: under which name it is sold, and for how much."""

    request: web.Request
    name: str
    price: Price


class SellerScheme(Protocol):
    """A scheme by which requests are paid."""

    @property
    def name(self) -> str:
        """The scheme's name in x402."""

    def requirement(self, price: Price) -> Requirement | None:
        """Return how a request of that price is paid, None while it cannot be by this scheme."""

    async def sell(self, sale: Sale) -> web.StreamResponse:
        """Answer a request that came with a payment; raises ProtocolBroken for a bad header."""


class Paywall:
    """Puts a price on routes of an aiohttp application: `middlewares=[paywall.middleware]`.

    `prices` by method and path, such as `POST /task`; `free` says which requests are let through
    without payment.  `refusal` returns the answer to a request that would be refused whoever pays
    for it.  It is called when a payment would count and has not yet: so nobody pays for a refusal,
    and only somebody who can pay causes the work of finding out.

    A priced path answers GET with its 402 as well, and takes payments that only ask something of
    the seller, such as a refund.  `declarations`, by method and path as well, say in the 402 what a
    route takes and answers, for those who list it.  With an `issuer` each 402 has signed offers,
    and each answer that was paid for a signed receipt.
    """

    def __init__(
        self,
        schemes: Sequence[SellerScheme],
        *,
        prices: Mapping[str, Pricing | Money],
        free: Free | None = None,
        refusal: Refusal | None = None,
        declarations: Mapping[str, Declaration] | None = None,
        issuer: Issuer | None = None,
    ) -> None:
        """Sell at `prices`, by any of `schemes`, of which the first is preferred."""
        self._schemes = {scheme.name: scheme for scheme in schemes}
        self._prices = dict(prices)
        self._paths = {key.partition(" ")[2]: key for key in prices}
        self._free = free
        self._refusal = refusal
        self._declarations = dict(declarations or {})
        self._issuer = issuer

    @property
    def middleware(self) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
        """The middleware of an aiohttp application."""

        @web.middleware
        async def require_payment(request: web.Request, handler: Handler) -> web.StreamResponse:
            name = f"{request.method} {request.path}"
            is_look = request.method in ("GET", "HEAD") and request.path in self._paths
            if name not in self._prices and is_look:
                return await self._sell(request, _nothing_here, self._paths[request.path])
            if name not in self._prices or (self._free and await self._free(request)):
                return await handler(request)
            return await self._sell(request, handler, name)

        return require_payment

    # -- inside ----------------------------------------------------------------------------------

    async def _sell(self, request: web.Request, handler: Handler, name: str) -> web.StreamResponse:
        """Answer a priced request: with 402 until it is paid, then with what it paid for."""
        ask = _Ask(request=request, name=name, price=await self._price(request, name))
        try:
            header = _payment_header(request)
            if header is None:
                return self._ask_to_pay(ask, "this request has to be paid for")
            scheme = self._schemes.get(_scheme_of(header))
            required = scheme.requirement(ask.price) if scheme else None
            if scheme is None or required is None:
                return self._ask_to_pay(ask, "the payment is by a scheme that is not taken here")
            sale = Sale(
                request=request,
                header=header,
                requirement=required,
                handler=handler,
                refusal=lambda: self._refused(request, name),
                ask_to_pay=lambda reason, extra: self._ask_to_pay(ask, reason, scheme.name, extra),
                issuer=self._issuer,
            )
            return await scheme.sell(sale)
        except ProtocolBroken as error:
            return refuse(400, str(error))

    async def _price(self, request: web.Request, name: str) -> Price:
        pricing = self._prices[name]
        return Price.of(pricing) if isinstance(pricing, Money) else await pricing(request)

    async def _refused(self, request: web.Request, name: str) -> web.Response | None:
        """Return the answer to a request that buys nothing, whoever pays; None for others."""
        if name != f"{request.method} {request.path}":
            return refuse(405, f"this is sold by {name.partition(' ')[0]}")
        return await self._refusal(request) if self._refusal else None

    def _ask_to_pay(
        self,
        ask: _Ask,
        reason: str,
        scheme: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> web.Response:
        """Return the 402 that says how to pay (x402 v2: PAYMENT-REQUIRED).

        `extra` is added to what the requirement of `scheme` says.
        """
        ways = []
        for each in self._schemes.values():
            requirement = each.requirement(ask.price)
            if requirement is None:
                continue
            if each.name == scheme and extra:
                requirement = requirement.model_copy(
                    update={"extra": {**requirement.extra, **extra}}
                )
            ways.append(requirement)
        challenge = Challenge(
            x402_version=VERSION,
            error=reason,
            resource=self._resource(ask),
            accepts=[way.document() for way in ways],
            extensions=self._extensions(ask, ways),
        )
        answer = refuse(402, reason)
        answer.headers[REQUIRED] = challenge.header()
        return answer

    def _resource(self, ask: _Ask) -> dict[str, str]:
        """Return what is sold, as the 402 names it."""
        resource = {"url": str(ask.request.url)}
        declaration = self._declarations.get(ask.name)
        if declaration:
            resource |= {"description": declaration.description, "mimeType": "application/json"}
        return resource

    def _extensions(self, ask: _Ask, ways: Sequence[Requirement]) -> dict[str, Any]:
        """Return the extensions that a client may use, or has to send back."""
        extensions: dict[str, Any] = {
            IDENTIFIER: {"info": {"required": False}, "schema": IDENTIFIER_SCHEMA}
        }
        declaration = self._declarations.get(ask.name)
        if declaration:
            extensions[BAZAAR] = declaration.document()
        url = resource_url(ask.request)
        if self._issuer and url:
            extensions[OFFER_RECEIPT] = self._issuer.offers(url, ways)
        return extensions


async def request_digest(request: web.Request, payment: Payment402) -> str:
    """Return the digest of what a payment is for, with the payer's own name for the payment."""
    body = await request.read()
    parts = [request.method, request.path_qs, payment.identifier]
    head = json.dumps(parts).encode()
    return hashlib.sha256(head + b"\n" + hashlib.sha256(body).digest()).hexdigest()


async def answered_by(handler: Handler, request: web.Request) -> web.Response:
    """Have a paid request answered; the answer has one body, which can be kept."""
    try:
        response = await handler(request)
    except web.HTTPException as raised:
        response = raised
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes | None):
        raise TypeError("what is paid for is answered as one body, which can be kept")
    return response


def with_receipt(settled: Settled, receipt: Mapping[str, Any]) -> Settled:
    """Return what became of a payment, with the seller's signed receipt if there is one."""
    if not receipt:
        return settled
    extensions = {OFFER_RECEIPT: receipt_extension(dict(receipt))}
    return settled.model_copy(update={"extensions": extensions})


def refuse(status: int, reason: str) -> web.Response:
    """Return an answer that is not what was asked for, as a JSON error."""
    error: dict[str, Any] = {
        "error": {"type": "PaymentRequired", "message": reason, "code": status}
    }
    answer = web.json_response(error, status=status, headers=PRIVATE)
    if status == 503:
        answer.headers["Retry-After"] = "1"
    return answer


def _payment_header(request: web.Request) -> str | None:
    """Return the payment of a request, None without one; raises ProtocolBroken for several."""
    headers = request.headers.getall(SIGNATURE, [])
    if len(headers) > 1:
        raise ProtocolBroken(f"one {SIGNATURE} header is enough")
    return headers[0] if headers else None


def _scheme_of(header: str) -> str:
    """Return the scheme that a payment names; raises ProtocolBroken."""
    return Payment402.read(header).accepted.scheme


async def _nothing_here(request: web.Request) -> web.StreamResponse:
    """Answer a GET of a path that is sold by POST."""
    raise web.HTTPMethodNotAllowed(request.method, ["POST"])
