"""Uploads through Turbo: items one by one, paid with credits or in USDC over x402.

Follows the OpenAPI document of ardriveapp/turbo-upload-service: `POST /v1/tx`,
`POST /v1/x402/data-item/signed` (x402 version 1), `GET /v1/tx/{id}/status`.

A payment may succeed while its upload fails.  So a payment is on disk before it is sent.  After an
unknown outcome the service is first asked for the item.  No second payment is made for an item
while the first may have been drawn.
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
"""The names of networks in x402 version 1, with their CAIP-2 ids."""


class TurboClient(Client):
    """A client of Turbo's documented API at one URL."""

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__([url], **settings)
        self.url = self._endpoints[0].url

    async def post(self, raw: bytes) -> bool:
        """Post a signed item, paid with credits; returns False if there are not enough of them."""
        taken, _ = await self._first(lambda endpoint: self._post(endpoint, "/v1/tx", raw))
        return taken

    async def terms(self, raw: bytes) -> bytes | None:
        """Return the payment terms (answer 402) for an item; None if it was taken for nothing."""
        taken, answer = await self._first(lambda endpoint: self._post(endpoint, PAID_PATH, raw))
        return None if taken else answer

    async def buy(self, raw: bytes, header: str) -> bool:
        """Post an item with its payment; returns False if the payment was refused.

        It is posted once and never repeated.  After StoreUnavailable it is unknown whether the
        payment was drawn and whether the item was taken.
        """

        async def post_once(endpoint: Endpoint) -> tuple[bool, bytes]:
            return await self._post(endpoint, PAID_PATH, raw, {"X-PAYMENT": header})

        no_repeats = Patience(rounds=1, backoff=0.0)
        taken, _ = await first_answer(post_once, self._endpoints, no_repeats)
        return taken

    async def has(self, name: str) -> bool:
        """Whether Turbo has taken an item; raises StoreUnavailable if it does not say."""

        async def ask(endpoint: Endpoint) -> bool:
            path = f"/v1/tx/{name}/status"
            status, _ = await endpoint.look(self._session, path, limit=SHORT, good=(200, 404))
            return status == 200

        return await self._first(ask)

    async def _post(
        self, endpoint: Endpoint, path: str, raw: bytes, headers: dict[str, str] | None = None
    ) -> tuple[bool, bytes]:
        """Post an item; returns whether it was taken, and the answer (payment terms if not)."""
        status, answer = await endpoint.post(
            self._session,
            path,
            raw,
            content_type=OCTETS,
            good=(200, 202, 402),
            headers=headers,
        )
        if status == 200 and read_json(_Receipt, answer).id != parse_item(raw).id:
            raise StateCorrupt("its receipt is one for another item")
        return status != 402, answer


class Turbo(Direct):
    """The upload path through Turbo.

    Without a `payer` uploads are paid with credits only.  `per_upload` is the most that one item
    may cost over x402.  `owner` is the wallet's address, for errors.
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
        """Send items one by one; an item whose payment is unconfirmed does not stop the others.

        Raises Unconfirmed for the first such item after all were tried, and StoreUnavailable at
        once for any other failure.
        """
        unconfirmed: list[Unconfirmed] = []
        for item in items:
            try:
                await self._send_item(item)
            except Unconfirmed as error:
                await self._outbox.move([item], item.state, str(error))
                unconfirmed.append(error)
            else:
                await self._outbox.accepted([item])
        if unconfirmed:
            raise unconfirmed[0]

    async def seed(self, name: str, items: Sequence[OutgoingSegment]) -> None:
        """Post the items to Turbo again."""
        for item in items:
            await self._client.post(item.raw)

    async def fee(self) -> Fee:
        """Return the most that an upload over x402 may cost; no fee where credits pay."""
        if self._payer is None or self._per_upload is None:
            return FREE
        return Fee(
            name="uploads",
            on="sealed log, each over x402",
            price=self._per_upload,
            at_most=self._per_upload,
        )

    async def close(self) -> None:
        """Close the connections to Turbo."""
        await self._client.close()

    # -- one item --------------------------------------------------------------------------------

    async def _send_item(self, item: OutgoingSegment) -> None:
        """Send one item; raises StoreUnavailable, also for limits and errors of the wallet."""
        try:
            await self._post_or_buy(item)
        except IntentMismatch as error:
            raise StoreUnavailable(f"{error}, and now other terms are asked for") from error
        except (PaymentError, PlanError, ProtocolBroken) as error:
            raise StoreUnavailable(str(error), hint=error.hint) from error

    async def _post_or_buy(self, item: OutgoingSegment) -> None:
        """Post one item with credits, or pay for it over x402 where credits do not suffice.

        If an earlier payment for it may have been drawn, the service is asked for the item first.
        """
        earlier = await self._payer.paid(item.item) if self._payer else None
        if earlier and earlier.fate != "unpaid":
            if await self._client.has(item.item):
                await self._settle(item)
                return
            if earlier.fate == "paid":
                raise Unconfirmed(earlier)

        # Credits first: an upload that is free or prepaid needs no payment.
        if await self._client.post(item.raw):
            return
        if self._payer is None:
            raise StoreUnavailable(
                f"needs credits, and {self._client.url} has not enough for {self._owner}",
                hint='top up Turbo credits, or set memory.pay = "x402"',
            )
        await self._buy(self._payer, item)

    async def _buy(self, payer: UploadPayer, item: OutgoingSegment) -> None:
        """Pay for an item over x402 and post it; after an unknown outcome it is not paid again."""
        terms = await self._client.terms(item.raw)
        if terms is None:
            return  # taken for nothing
        option = self._cheapest_option(payer, terms)
        payment = await payer.pay(item.item, option.required)
        try:
            taken = await self._client.buy(item.raw, option.header(payment))
        except StoreUnavailable as error:
            await self._check_arrived(payer, item, error)
            taken = True
        if not taken:
            raise StoreUnavailable(f"{self._client.url} does not take payment {payment.name}")
        await self._settle(item)

    async def _check_arrived(
        self, payer: UploadPayer, item: OutgoingSegment, error: StoreUnavailable
    ) -> None:
        """Check whether an item arrived although the answer to its payment was lost.

        Raises Unconfirmed if the payment may have been drawn, else `error`.
        """
        if await self._client.has(item.item):
            return
        payment = await payer.paid(item.item)
        if payment is None or payment.fate == "unpaid":
            raise error
        raise Unconfirmed(payment) from error

    async def _settle(self, item: OutgoingSegment) -> None:
        """Record the payment for an item that has arrived as spent."""
        if self._payer:
            await self._payer.settle(item.item)

    def _cheapest_option(self, payer: UploadPayer, terms: bytes) -> _PaymentOption:
        """Return the cheapest option that this wallet can pay; raises StoreUnavailable."""
        payable = [option for option in _payment_options(terms) if payer.takes(option.required)]
        if not payable:
            raise StoreUnavailable(
                f"{self._client.url} cannot be paid from this wallet", hint="set memory.upload"
            )
        cheapest = min(payable, key=lambda option: int(option.required.amount))
        limit = self._per_upload
        price = int(cheapest.required.amount)
        if limit is not None and price > limit.units:
            raise StoreUnavailable(
                f"needs {Money(price, limit.asset)}, above memory.per_upload ({limit})",
                hint="raise memory.per_upload, or wait for a lower price",
            )
        return cheapest


class Unconfirmed(StoreUnavailable):
    """A payment was sent, and the service does not confirm that it has the item."""

    def __init__(self, payment: UploadPayment) -> None:
        progress = "settled" if payment.fate == "paid" else "sent"
        super().__init__(
            f"payment {payment.name}… {progress}, upload unconfirmed",
            hint='ask the service for it, or set memory.upload = "l1": nothing is paid twice',
        )


class _Receipt(BaseModel):
    id: str


class _Terms(BaseModel):
    """The body of answer 402 in x402 version 1."""

    accepts: list[dict[str, Any]] = Field(max_length=32)


class _Wire(BaseModel):
    """One payment option as x402 version 1 writes it."""

    scheme: str
    network: str
    amount: str = Field(alias="maxAmountRequired")
    asset: str
    pay_to: str = Field(alias="payTo")
    seconds: int = Field(alias="maxTimeoutSeconds", default=0)
    extra: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class _PaymentOption:
    """One payment option in the form of version 2, with the network's name in version 1."""

    required: Requirement
    network: str

    def header(self, payment: UploadPayment) -> str:
        """Return the value of the header X-PAYMENT in version 1."""
        document = {
            "x402Version": 1,
            "scheme": self.required.scheme,
            "network": self.network,
            "payload": payment.proof.document(),
        }
        return base64.b64encode(json.dumps(document).encode()).decode()


def _payment_options(answer: bytes) -> list[_PaymentOption]:
    """Return the readable payment options of an answer 402; raises StateCorrupt."""
    try:
        entries = _Terms.model_validate_json(answer).accepts
    except ValidationError as error:
        raise StateCorrupt("it asks for money in no way that x402 knows") from error
    options = (_payment_option(entry) for entry in entries)
    return [option for option in options if option is not None]


def _payment_option(entry: dict[str, Any]) -> _PaymentOption | None:
    """Return a payment option; None for one that cannot be read, which is skipped."""
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
    return _PaymentOption(required, wire.network)
