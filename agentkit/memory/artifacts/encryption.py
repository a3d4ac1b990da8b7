"""Artifacts as they leave this machine: encrypted, because no public store forgets."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentkit.errors import StateCorrupt
from agentkit.memory.sealing.sealer import Sealer
from agentkit.memory.sealing.shred import secret

NONCE_BYTES = 12
OVERHEAD = 16
"""Bytes that a covered artifact is longer than a plain one."""


def cover_of(sealer: Sealer) -> Cover:
    """Return the cover of a wallet's artifacts: it opens with what opens the wallet's log."""
    info = "agentkit/memory/v1/artifacts"
    return Cover(secret(sealer, info), sealer.derive(info))


class Cover:
    """AES-256-GCM under one key, with the artifact's digest as what it is bound to.

    What `older` keys covered still opens.  The nonce is a function of the digest, so that the same
    artifact is the same bytes again and is stored once; two artifacts never share one.
    """

    def __init__(self, key: bytes, *older: bytes) -> None:
        self._keys = tuple(dict.fromkeys((key, *older)))

    def covered(self, data: bytes, digest: str) -> bytes:
        """Return the bytes that go out for the artifact of this digest."""
        key = self._keys[0]
        return AESGCM(key).encrypt(_nonce(key, digest), data, digest.encode())

    def opened(self, stored: bytes, digest: str) -> bytes:
        """Return the artifact out of what a store gave, covered or plain; raises StateCorrupt."""
        if hashlib.sha256(stored).hexdigest() == digest:
            return stored
        data = self._decrypted(stored, digest)
        if hashlib.sha256(data).hexdigest() != digest:
            raise StateCorrupt(f"artifact {digest[:12]} does not hash to its own name")
        return data

    def _decrypted(self, stored: bytes, digest: str) -> bytes:
        """Decrypt with each key that there is; raises StateCorrupt when none fits."""
        for key in self._keys:
            try:
                return AESGCM(key).decrypt(_nonce(key, digest), stored, digest.encode())
            except (InvalidTag, ValueError):
                continue
        raise StateCorrupt(
            f"these are not the bytes of artifact {digest[:12]}, or not for this key"
        )


def _nonce(key: bytes, digest: str) -> bytes:
    return hmac.digest(key, digest.encode(), "sha256")[:NONCE_BYTES]
