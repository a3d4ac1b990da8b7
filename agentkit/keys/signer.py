"""A wallet's key and the named operations on it; none of them signs a bare hash."""

from __future__ import annotations

from typing import Protocol

import coincurve
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agentkit.errors import WrongKey
from agentkit.keys.channel_messages import ChannelVoucher, ClaimBatch, Order, Refund
from agentkit.keys.messages import (
    Accept,
    Delivery,
    Domain,
    ItemMessage,
    Quote,
    ReceiveAuthorization,
    Release,
    TransferAuthorization,
    UnsignedTransaction,
    Voucher,
    address_of,
    keccak,
    typed_digest,
)
from agentkit.keys.permit2_messages import UptoPermit
from agentkit.keys.statement_messages import OfferStatement, ReceiptStatement


class Signer(Protocol):
    """The operations on a wallet's key; signatures are r ‖ s ‖ v (65 bytes) with v 27 or 28.

    Each operation takes a whole message, so that a signer can refuse or log what it signs.
    """

    @property
    def address(self) -> str:
        """Checksummed address of the key."""

    @property
    def public_key(self) -> bytes:
        """Uncompressed public key, 65 bytes."""

    def sign_voucher(self, domain: Domain, voucher: Voucher) -> bytes:
        """Sign, as the payer of a channel, what its provider may claim."""

    def sign_release(self, domain: Domain, release: Release) -> bytes:
        """Sign, as the provider of a channel, that the rest goes back to the payer."""

    def sign_quote(self, domain: Domain, quote: Quote) -> bytes:
        """Sign, as a provider, a quote for money in escrow."""

    def sign_accept(self, domain: Domain, accept: Accept) -> bytes:
        """Sign, as payer or provider, at what a job in escrow settles."""

    def sign_authorization(self, domain: Domain, authorization: ReceiveAuthorization) -> bytes:
        """Sign, as the owner of tokens, that a contract may draw them (EIP-3009)."""

    def sign_delivery(self, domain: Domain, delivery: Delivery) -> bytes:
        """Sign, as a provider, what was delivered at what price."""

    def sign_transfer(self, domain: Domain, transfer: TransferAuthorization) -> bytes:
        """Sign, as the owner of tokens, that anybody may move them to a payee (EIP-3009)."""

    def sign_channel_voucher(self, domain: Domain, voucher: ChannelVoucher) -> bytes:
        """Sign, as the payer of a channel, up to how much its receiver may claim (x402)."""

    def sign_refund(self, domain: Domain, refund: Refund) -> bytes:
        """Sign, as the receiver of a channel, what goes back to its payer (x402)."""

    def sign_claims(self, domain: Domain, claims: ClaimBatch) -> bytes:
        """Sign, as the receiver of channels, what is claimed on them (x402)."""

    def sign_order(self, domain: Domain, order: Order) -> bytes:
        """Sign, as the payer of a channel, what is ordered on it."""

    def sign_upto(self, domain: Domain, permit: UptoPermit) -> bytes:
        """Sign, as the owner of tokens, up to how much a facilitator may move (x402 `upto`)."""

    def sign_offer(self, domain: Domain, offer: OfferStatement) -> bytes:
        """Sign, as a seller, how a request may be paid (x402 `offer-receipt`)."""

    def sign_receipt(self, domain: Domain, receipt: ReceiptStatement) -> bytes:
        """Sign, as a seller, that somebody has paid and was served (x402 `offer-receipt`)."""

    def sign_tx(self, transaction: UnsignedTransaction) -> tuple[str, bytes]:
        """Return (hash as 0x hex, raw bytes) of the signed transaction."""

    def sign_item(self, item: ItemMessage) -> bytes:
        """Sign a data item for Arweave (ANS-104)."""

    def derive(self, info: str) -> bytes:
        """Return a 32-byte key that depends on the private key and `info` (HKDF-SHA256)."""


class KeySigner:
    """A signer whose key is in this process; see `Signer`."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise WrongKey("a private key has 32 bytes")
        self._key = coincurve.PrivateKey(key)
        self._public = self._key.public_key.format(compressed=False)
        self._address = address_of(self._public)

    def __repr__(self) -> str:
        return f"KeySigner({self._address})"

    def __reduce__(self) -> str:
        raise TypeError("a signer cannot be pickled")

    @property
    def address(self) -> str:
        return self._address

    @property
    def public_key(self) -> bytes:
        return self._public

    def sign_voucher(self, domain: Domain, voucher: Voucher) -> bytes:
        return self._sign(typed_digest(domain, voucher))

    def sign_release(self, domain: Domain, release: Release) -> bytes:
        return self._sign(typed_digest(domain, release))

    def sign_quote(self, domain: Domain, quote: Quote) -> bytes:
        return self._sign(typed_digest(domain, quote))

    def sign_accept(self, domain: Domain, accept: Accept) -> bytes:
        return self._sign(typed_digest(domain, accept))

    def sign_authorization(self, domain: Domain, authorization: ReceiveAuthorization) -> bytes:
        return self._sign(typed_digest(domain, authorization))

    def sign_delivery(self, domain: Domain, delivery: Delivery) -> bytes:
        return self._sign(typed_digest(domain, delivery))

    def sign_transfer(self, domain: Domain, transfer: TransferAuthorization) -> bytes:
        return self._sign(typed_digest(domain, transfer))

    def sign_channel_voucher(self, domain: Domain, voucher: ChannelVoucher) -> bytes:
        return self._sign(typed_digest(domain, voucher))

    def sign_refund(self, domain: Domain, refund: Refund) -> bytes:
        return self._sign(typed_digest(domain, refund))

    def sign_claims(self, domain: Domain, claims: ClaimBatch) -> bytes:
        return self._sign(typed_digest(domain, claims))

    def sign_order(self, domain: Domain, order: Order) -> bytes:
        return self._sign(typed_digest(domain, order))

    def sign_upto(self, domain: Domain, permit: UptoPermit) -> bytes:
        return self._sign(typed_digest(domain, permit))

    def sign_offer(self, domain: Domain, offer: OfferStatement) -> bytes:
        return self._sign(typed_digest(domain, offer))

    def sign_receipt(self, domain: Domain, receipt: ReceiptStatement) -> bytes:
        return self._sign(typed_digest(domain, receipt))

    def sign_tx(self, transaction: UnsignedTransaction) -> tuple[str, bytes]:
        raw = transaction.signed(self._sign(keccak(transaction.unsigned())))
        return "0x" + keccak(raw).hex(), raw

    def sign_item(self, item: ItemMessage) -> bytes:
        return self._sign(item.digest())

    def derive(self, info: str) -> bytes:
        return HKDF(SHA256(), 32, salt=None, info=info.encode()).derive(self._key.secret)

    def _sign(self, digest: bytes) -> bytes:
        """Sign a digest; coincurve's recovery id 0 or 1 is Ethereum's v 27 or 28."""
        signature = self._key.sign_recoverable(digest, hasher=None)
        r_and_s = signature[:64]
        v = signature[64] + 27
        return r_and_s + bytes([v])
