"""Issues a seller's signed offers and receipts (x402 extension `offer-receipt`).

The seller signs with the key that is paid, so whoever has a statement can check it alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from agentkit.keys.signer import Signer
from agentkit.keys.statement_messages import OFFER_DOMAIN, RECEIPT_DOMAIN
from agentkit.market.offer_receipt import (
    OfferPayload,
    ReceiptPayload,
    SignedOffer,
    SignedReceipt,
)
from agentkit.market.x402 import Requirement

_OFFERS = {"offers": {"type": "array", "items": {"type": "object"}}}
_RECEIPT = {"receipt": {"type": "object"}}


MAX_URL = 512
"""The longest address, in characters, that a statement is made about: each 402 repeats it."""


class Issuer:
    """Signs, for one seller on one network, what it offers and what was paid for and served."""

    def __init__(self, signer: Signer, network: str) -> None:
        """Sign with `signer`, whose address is paid, on the network of that id (CAIP-2)."""
        self._signer = signer
        self._network = network

    def offers(self, url: str, ways: Iterable[Requirement]) -> dict[str, Any]:
        """Return the extension of a 402: an offer for each way in which a resource may be paid."""
        signed = [self._offer(url, way, index) for index, way in enumerate(ways)]
        return {"info": {"offers": signed}, "schema": _schema(_OFFERS)}

    def receipt(self, url: str, payer: str, transaction: str = "") -> dict[str, Any]:
        """Return a signed receipt, as of now, for a payer who has paid and was served."""
        payload = ReceiptPayload(
            version=1,
            network=self._network,
            resource_url=url,
            payer=payer,
            issued_at=int(time.time()),
            transaction=transaction,
        )
        signature = self._signer.sign_receipt(RECEIPT_DOMAIN, payload.statement())
        signed = SignedReceipt(format="eip712", payload=payload, signature="0x" + signature.hex())
        return signed.document()

    def _offer(self, url: str, way: Requirement, index: int) -> dict[str, Any]:
        """Return a signed offer; `acceptIndex` is beside what is signed, for a quick look."""
        payload = OfferPayload(
            version=1,
            resource_url=url,
            scheme=way.scheme,
            network=way.network,
            asset=way.asset,
            pay_to=way.pay_to,
            amount=way.amount,
            valid_until=int(time.time()) + way.max_timeout_seconds,
        )
        signature = self._signer.sign_offer(OFFER_DOMAIN, payload.statement())
        signed = SignedOffer(format="eip712", payload=payload, signature="0x" + signature.hex())
        return {**signed.document(), "acceptIndex": index}


def resource_url(request: web.Request) -> str:
    """Return the address that statements about a request name, "" for one that is too long.

    It is without the query: statements are shown to others, and a query may hold what is private.
    """
    url = str(request.url.with_query(None).with_fragment(None))
    return url if len(url) <= MAX_URL else ""


def receipt_extension(receipt: dict[str, Any]) -> dict[str, Any]:
    """Return the extension of a payment's answer that carries a signed receipt."""
    return {"info": {"receipt": receipt}, "schema": _schema(_RECEIPT)}


def _schema(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema that the form of extensions asks for; it is short on purpose.

    What a statement has to look like stands in the specification, and header lines are short.
    """
    return {"type": "object", "properties": properties, "required": list(properties)}
