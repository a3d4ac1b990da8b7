"""Uploads through Turbo: items posted one by one, paid by credits or in USDC over x402.

Follows the OpenAPI document of ardriveapp/turbo-upload-service: `POST /v1/tx`,
`POST /v1/x402/data-item/signed` (x402 version 1), `GET /v1/tx/{id}/status`.  A payment may settle
and its upload fail; so it is on disk before it leaves, the id is looked up before anything else
is done, and no second payment is made for an item while the first may have been drawn.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from agentkit.errors import (
    IntentMismatch,
    PaymentError,
    PlanError,
    ProtocolBroken,
    StateCorrupt,
    StoreUnavailable,
)
from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.market.plan import Fee
from agentkit.market.uploads import UploadPayer, UploadPayment
from agentkit.market.x402 import Requirement
from agentkit.memory.arweave.ans104 import parse_item
from agentkit.memory.arweave.client import Client, read_json
from agentkit.memory.arweave.endpoint import Endpoint
from agentkit.memory.arweave.failover import Patience, first_answer
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.uploads.outbox import Outbox
from agentkit.memory.uploads.upload_paths import FREE, Direct
from agentkit.money import Money

OCTETS = "application/octet-stream"
PAID_PATH = "/v1/x402/data-item/signed"
SHORT = 64 * 1024
NETWORKS = {"base": "eip155:8453", "base-sepolia": "eip155:84532"}
"""What x402 version 1 calls networks, and their CAIP-2 ids."""


class TurboClient(Client):
    """Turbo's documented API at one address."""

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__([url], **settings)
        self.url = self._endpoints[0].url

    async def post(self, raw: bytes) -> bool:
        """Hand over a signed item against credits; False when there are not enough of them."""
        return (await self._first(lambda endpoint: self._post(endpoint, "/v1/tx", raw)))[0]

    async def terms(self, raw: bytes) -> bytes | None:
        """Ask for the price of an item over x402; None when it was taken for nothing."""
        taken, answer = await self._first(lambda endpoint: self._post(endpoint, PAID_PATH, raw))
        return None if taken else answer

    async def buy(self, raw: bytes, header: str) -> bool:
        """Hand over an item with its payment, once; False when the payment is not taken.

        Raises StoreUnavailable: what became of payment and item is unknown.
        """

        async def once(endpoint: Endpoint) -> tuple[bool, bytes]:
            return await self._post(endpoint, PAID_PATH, raw, {"X-PAYMENT": header})

        return (await first_answer(once, self._endpoints, Patience(1, 0.0)))[0]

    async def has(self, name: str) -> bool:
        """Whether it has taken an item; raises StoreUnavailable when it does not say."""

        async def ask(endpoint: Endpoint) -> bool:
            path = f"/v1/tx/{name}/status"
            status, _ = await endpoint.look(self._session, path, limit=SHORT, good=(200, 404))
            return status == 200

        return await self._first(ask)

    async def _post(
        self, endpoint: Endpoint, path: str, raw: bytes, more: dict[str, str] | None = None
    ) -> tuple[bool, bytes]:
        """Post an item; returns whether it was taken, and the answer (payment terms if not)."""
        status, answer = await endpoint.post(
            self._session, path, raw, content_type=OCTETS, good=(200, 202, 402), headers=more
        )
        if status == 200 and read_json(_Receipt, answer).id != parse_item(raw).id:
            raise StateCorrupt("its receipt is one for another item")
        return status != 402, answer


class Turbo(Direct):
    """Items through Turbo; without a payer, credits are all that pays for them.

    `per_upload` is the most one item may cost.
    """

    def __init__(
        self,
        outbox: Outbox,
        gateways: Gateways,
        client: TurboClient,
        *,
        owner: str,
        payer: UploadPayer | None = None,
        per_upload: Money | None = None,
    ) -> None:
        super().__init__(outbox, gateways)
        self._client = client
        self._owner = owner
        self._payer = payer
        self._per_upload = per_upload

    async def send(self, items: Sequence[OutgoingSegment]) -> None:
        """Send items one by one; one whose payment is unconfirmed waits, the others go on."""
        unconfirmed = []
        for item in items:
            try:
                await self._hand_over(item)
            except Unconfirmed as problem:  # the others need not wait for it
                await self._outbox.move([item], item.state, str(problem))
                unconfirmed.append(problem)
            else:
                await self._outbox.accepted([item])
        if unconfirmed:
            raise unconfirmed[0]

    async def seed(self, name: str, items: Sequence[OutgoingSegment]) -> None:
        for item in items:
            await self._client.post(item.raw)

    async def fee(self) -> Fee:
        if self._payer is None or self._per_upload is None:
            return FREE
        cap = self._per_upload
        return Fee(name="uploads", on="sealed log, each over x402", price=cap, at_most=cap)

    async def close(self) -> None:
        await self._client.close()

    # -- one item --------------------------------------------------------------------------------

    async def _hand_over(self, item: OutgoingSegment) -> None:
        """Have an item taken; raises StoreUnavailable for what the wallet or its limits say."""
        try:
            await self._take(item)
        except IntentMismatch as error:
            raise StoreUnavailable(f"{error}, and now other terms are asked for") from error
        except (PaymentError, PlanError, ProtocolBroken) as error:
            raise StoreUnavailable(str(error), hint=error.hint) from error

    async def _take(self, item: OutgoingSegment) -> None:
        """Have an item taken, by credits or for a payment; what may be paid is asked for first."""
        known = await self._payer.paid(item.item) if self._payer else None
        if known and known.fate != "unpaid":
            if await self._client.has(item.item):
                await self._settled(item)
                return
            if known.fate == "paid":
                raise Unconfirmed(known)
        if await self._client.post(item.raw):
            return
        if self._payer is None:
            raise StoreUnavailable(
                f"needs credits, and {self._client.url} has not enough for {self._owner}",
                hint='top up Turbo credits, or set memory.pay = "x402"',
            )
        await self._buy(self._payer, item)

    async def _buy(self, payer: UploadPayer, item: OutgoingSegment) -> None:
        """Pay for an item over x402; an unknown outcome is looked up, never paid again."""
        terms = await self._client.terms(item.raw)
        if terms is None:
            return
        way = self._affordable(payer, terms)
        payment = await payer.pay(item.item, way.required)
        try:
            taken = await self._client.buy(item.raw, way.header(payment))
        except StoreUnavailable as unknown:
            await self._look_up(payer, item, unknown)
            taken = True
        if not taken:
            raise StoreUnavailable(f"{self._client.url} does not take payment {payment.name}")
        await self._settled(item)

    async def _look_up(
        self, payer: UploadPayer, item: OutgoingSegment, unknown: StoreUnavailable
    ) -> None:
        """Return when an item arrived after all; raises Unconfirmed."""
        if await self._client.has(item.item):
            return
        known = await payer.paid(item.item)
        if known is None or known.fate == "unpaid":
            raise unknown
        raise Unconfirmed(known) from unknown

    async def _settled(self, item: OutgoingSegment) -> None:
        if self._payer:
            await self._payer.settle(item.item)

    def _affordable(self, payer: UploadPayer, terms: bytes) -> _Way:
        """Return the cheapest way to pay that is within the cap; raises StoreUnavailable."""
        ours = [way for way in _ways(terms) if payer.takes(way.required)]
        if not ours:
            raise StoreUnavailable(
                f"{self._client.url} cannot be paid from this wallet", hint="set memory.upload"
            )
        cheapest = min(ours, key=lambda way: int(way.required.amount))
        cap, needed = self._per_upload, int(cheapest.required.amount)
        if cap is not None and needed > cap.units:
            raise StoreUnavailable(
                f"needs {Money(needed, cap.asset)}, above memory.per_upload ({cap})",
                hint="raise memory.per_upload, or wait for a lower price",
            )
        return cheapest


class Unconfirmed(StoreUnavailable):
    """A payment left, and nobody says that its item arrived."""

    def __init__(self, payment: UploadPayment) -> None:
        done = "settled" if payment.fate == "paid" else "sent"
        super().__init__(
            f"payment {payment.name}… {done}, upload unconfirmed",
            hint='ask the service for it, or set memory.upload = "l1": nothing is paid twice',
        )


class _Receipt(BaseModel):
    id: str


class _Terms(BaseModel):
    """Answer 402 of x402 version 1."""

    accepts: list[dict[str, Any]] = Field(max_length=32)


class _Wire(BaseModel):
    """One way to pay, as version 1 has it."""

    scheme: str
    network: str
    amount: str = Field(alias="maxAmountRequired")
    asset: str
    pay_to: str = Field(alias="payTo")
    seconds: int = Field(alias="maxTimeoutSeconds", default=0)
    extra: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to pay: as version 2 has it, and what version 1 calls its network."""

    required: Requirement
    network: str

    def header(self, payment: UploadPayment) -> str:
        """Return X-PAYMENT of version 1."""
        document = {
            "x402Version": 1,
            "scheme": self.required.scheme,
            "network": self.network,
            "payload": payment.proof.document(),
        }
        return base64.b64encode(json.dumps(document).encode()).decode()


def _ways(answer: bytes) -> list[_Way]:
    try:
        entries = _Terms.model_validate_json(answer).accepts
    except ValidationError as error:
        raise StateCorrupt("it asks for money in no way that x402 knows") from error
    return [way for entry in entries if (way := _way(entry))]


def _way(entry: dict[str, Any]) -> _Way | None:
    """Return a way to pay; None for one that cannot be read."""
    try:
        wire = _Wire.model_validate(entry)
        required = Requirement(
            scheme=wire.scheme,
            network=NETWORKS.get(wire.network, wire.network),
            asset=wire.asset,
            amount=wire.amount,
            pay_to=wire.pay_to,
            max_timeout_seconds=wire.seconds,
            extra=wire.extra,
        )
    except ValidationError:
        return None
    return _Way(required, wire.network)
