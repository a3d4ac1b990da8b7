"""A key and the named operations on it.  There is no "sign any hash"."""

from __future__ import annotations

from typing import Protocol

import coincurve
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agentkit.errors import WrongKey
from agentkit.keys.messages import (
    Accept,
    Authorization,
    Delivery,
    Domain,
    ItemMessage,
    Quote,
    Release,
    Transfer,
    UnsignedTransaction,
    Voucher,
    address_of,
    keccak,
    typed_digest,
)


class Signer(Protocol):
    """What a wallet can be asked to do; signatures are r ‖ s ‖ v with v 27 or 28."""

    @property
    def address(self) -> str:
        """Checksummed address of the key."""

    @property
    def public_key(self) -> bytes:
        """Uncompressed public key, 65 bytes."""

    def sign_voucher(self, domain: Domain, voucher: Voucher) -> bytes: ...

    def sign_release(self, domain: Domain, release: Release) -> bytes: ...

    def sign_quote(self, domain: Domain, quote: Quote) -> bytes: ...

    def sign_accept(self, domain: Domain, accept: Accept) -> bytes: ...

    def sign_authorization(self, domain: Domain, authorization: Authorization) -> bytes: ...

    def sign_delivery(self, domain: Domain, delivery: Delivery) -> bytes: ...

    def sign_transfer(self, domain: Domain, transfer: Transfer) -> bytes: ...

    def sign_tx(self, transaction: UnsignedTransaction) -> tuple[str, bytes]:
        """Return (hash as 0x hex, raw bytes) of the signed transaction."""

    def sign_item(self, item: ItemMessage) -> bytes: ...

    def derive(self, info: str) -> bytes:
        """Return a 32-byte key for `info`, a function of the private key (HKDF-SHA256)."""


class KeySigner:
    """A signer whose key is in this process."""

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

    def sign_authorization(self, domain: Domain, authorization: Authorization) -> bytes:
        return self._sign(typed_digest(domain, authorization))

    def sign_delivery(self, domain: Domain, delivery: Delivery) -> bytes:
        return self._sign(typed_digest(domain, delivery))

    def sign_transfer(self, domain: Domain, transfer: Transfer) -> bytes:
        return self._sign(typed_digest(domain, transfer))

    def sign_tx(self, transaction: UnsignedTransaction) -> tuple[str, bytes]:
        raw = transaction.signed(self._sign(keccak(transaction.unsigned())))
        return "0x" + keccak(raw).hex(), raw

    def sign_item(self, item: ItemMessage) -> bytes:
        return self._sign(item.digest())

    def derive(self, info: str) -> bytes:
        return HKDF(SHA256(), 32, salt=None, info=info.encode()).derive(self._key.secret)

    def _sign(self, digest: bytes) -> bytes:
        signature = self._key.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes([signature[64] + 27])
