"""The typed messages of the x402 extension `offer-receipt`: a seller's signed offer and receipt.

Types and domains follow specs/extensions/extension-offer-and-receipt.md of
https://github.com/x402-foundation/x402.  They are never brought to a chain, so their domains name
no contract, and chain 1 whatever network is paid on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agentkit.keys.messages import Domain, keccak, word

OFFER_DOMAIN = Domain("x402 offer", "1", 1, "")
RECEIPT_DOMAIN = Domain("x402 receipt", "1", 1, "")


@dataclass(frozen=True, slots=True)
class OfferStatement:
    """A seller's word for how a request of `resource_url` may be paid, until `valid_until`.

    `amount` in base units, as digits; `valid_until` in unix seconds, 0 for no end.
    """

    TYPE: ClassVar[bytes] = keccak(
        b"Offer(uint256 version,string resourceUrl,string scheme,string network,string asset,"
        b"string payTo,string amount,uint256 validUntil)"
    )
    version: int
    resource_url: str
    scheme: str
    network: str
    asset: str
    pay_to: str
    amount: str
    valid_until: int

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields; a text is its own hash (EIP-712)."""
        return keccak(
            self.TYPE
            + word(self.version)
            + _text(self.resource_url)
            + _text(self.scheme)
            + _text(self.network)
            + _text(self.asset)
            + _text(self.pay_to)
            + _text(self.amount)
            + word(self.valid_until)
        )


@dataclass(frozen=True, slots=True)
class ReceiptStatement:
    """A seller's word that `payer` paid for a request of `resource_url` and was served.

    `issued_at` in unix seconds; `transaction` is the one that paid, "" where it is not named.
    """

    TYPE: ClassVar[bytes] = keccak(
        b"Receipt(uint256 version,string network,string resourceUrl,string payer,"
        b"uint256 issuedAt,string transaction)"
    )
    version: int
    network: str
    resource_url: str
    payer: str
    issued_at: int
    transaction: str

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields; a text is its own hash (EIP-712)."""
        return keccak(
            self.TYPE
            + word(self.version)
            + _text(self.network)
            + _text(self.resource_url)
            + _text(self.payer)
            + word(self.issued_at)
            + _text(self.transaction)
        )


def _text(value: str) -> bytes:
    return keccak(value.encode())
