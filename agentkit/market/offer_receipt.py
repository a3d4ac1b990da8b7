"""The x402 extension `offer-receipt`: what a seller signs about a request that it sells.

Follows specs/extensions/extension-offer-and-receipt.md of
https://github.com/x402-foundation/x402.  Signatures by EIP-712 are read, and count if the payee
itself made them: then nothing but the statement is needed to check it.  The format also has
signatures by a key that only the seller's website names (JWS); those are passed over.

Neither statement names what was charged, a channel, or a digest of what was delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, ValidationError

from agentkit.market.x402 import Challenge, Requirement, Settled, Wire

if TYPE_CHECKING:  # planning reads no statement, and its libraries are slow to import
    from agentkit.keys.messages import Domain, Typed
    from agentkit.keys.statement_messages import OfferStatement, ReceiptStatement

EXTENSION = "offer-receipt"

MAX_URL = 2048
"""The most characters of a resource's address that are read."""

MAX_OFFERS = 32
"""The most offers of one 402 that are looked at: as many as it may have ways to pay."""

Seconds = Annotated[int, Field(ge=0, lt=2**53)]
"""A unix time; JSON readers read larger numbers inexactly."""

Signature = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{130}$")]


class _Signed(Wire):
    """Base of what is signed: a field that this version does not know is not covered by it."""

    model_config = ConfigDict(extra="forbid")


class OfferPayload(_Signed):
    """What a signed offer says: how one request of a resource may be paid."""

    version: Literal[1]
    resource_url: str = Field(max_length=MAX_URL)
    scheme: str = Field(max_length=64)
    network: str = Field(max_length=128)
    asset: str = Field(max_length=128)
    pay_to: str = Field(max_length=128)
    amount: str = Field(pattern=r"^[0-9]{1,39}$")
    valid_until: Seconds = 0

    def statement(self) -> OfferStatement:
        """Return the message that is signed."""
        from agentkit.keys.statement_messages import OfferStatement

        return OfferStatement(**self.model_dump())

    def is_of(self, requirement: Requirement) -> bool:
        """Return whether this offers one way to pay."""
        return (
            (self.scheme, self.network) == (requirement.scheme, requirement.network)
            and self.asset.lower() == requirement.asset.lower()
            and self.pay_to.lower() == requirement.pay_to.lower()
            and self.amount == requirement.amount
        )


class SignedOffer(Wire):
    """An offer with its signature."""

    format: Literal["eip712"]
    payload: OfferPayload
    signature: Signature

    @property
    def signer(self) -> str:
        """The address that signed, "" for a signature that is not valid."""
        from agentkit.keys.statement_messages import OFFER_DOMAIN

        return _signer(OFFER_DOMAIN, self.payload.statement(), self.signature)


class ReceiptPayload(_Signed):
    """What a signed receipt says: somebody has paid for a resource, and was served."""

    version: Literal[1]
    network: str = Field(max_length=128)
    resource_url: str = Field(max_length=MAX_URL)
    payer: str = Field(max_length=128)
    issued_at: Seconds
    transaction: str = Field(default="", max_length=128)

    def statement(self) -> ReceiptStatement:
        """Return the message that is signed."""
        from agentkit.keys.statement_messages import ReceiptStatement

        return ReceiptStatement(**self.model_dump())


class SignedReceipt(Wire):
    """A receipt with its signature."""

    format: Literal["eip712"]
    payload: ReceiptPayload
    signature: Signature

    @property
    def signer(self) -> str:
        """The address that signed, "" for a signature that is not valid."""
        from agentkit.keys.statement_messages import RECEIPT_DOMAIN

        return _signer(RECEIPT_DOMAIN, self.payload.statement(), self.signature)


# -- reading -------------------------------------------------------------------------------------


def offer_in(challenge: Challenge, requirement: Requirement, path: str) -> SignedOffer | None:
    """Return the payee's own signed offer of one way to pay for a path, None without one.

    The order of offers is no promise; each is held against the terms that it signs.
    """
    offers = _info(challenge.extensions).get("offers")
    if not isinstance(offers, list):
        return None
    read = (_read(SignedOffer, document) for document in offers[:MAX_OFFERS])
    fitting = (
        offer
        for offer in read
        if offer and offer.payload.is_of(requirement) and _is_at(offer.payload.resource_url, path)
    )
    payee = requirement.pay_to.lower()
    return next((offer for offer in fitting if offer.signer.lower() == payee), None)


def receipt_in(
    settled: Settled | None, *, payee: str, payer: str, network: str, path: str
) -> SignedReceipt | None:
    """Return the payee's own signed receipt for a payer's request of a path, None without one."""
    extensions = settled.extensions if settled else None
    receipt = _read(SignedReceipt, _info(extensions).get("receipt"))
    if receipt is None or receipt.payload.network != network:
        return None
    is_ours = receipt.payload.payer.lower() == payer.lower()
    if not is_ours or not _is_at(receipt.payload.resource_url, path):
        return None
    return receipt if receipt.signer.lower() == payee.lower() else None


S = TypeVar("S", SignedOffer, SignedReceipt)


def _read(kind: type[S], document: object) -> S | None:
    """Return a statement, None for anything else."""
    try:
        return kind.model_validate(document)
    except ValidationError:
        return None


def _info(extensions: object) -> Mapping[str, Any]:
    """Return what the extension says, nothing where it is not there."""
    extension = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
    info = extension.get("info") if isinstance(extension, dict) else None
    return info if isinstance(info, dict) else {}


def _is_at(url: str, path: str) -> bool:
    """Return whether an address has this path; a proxy may have changed its host and scheme."""
    try:
        return (urlsplit(url).path or "/") == path
    except ValueError:
        return False


def _signer(domain: Domain, statement: Typed, signature: str) -> str:
    """Return who signed a statement, "" where that cannot be told."""
    from agentkit.keys.messages import recover, typed_digest

    try:
        return recover(typed_digest(domain, statement), bytes.fromhex(signature[2:]))
    except ValueError:  # a text that has no bytes in UTF-8
        return ""
