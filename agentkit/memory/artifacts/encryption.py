"""Encrypts artifacts before they leave this machine, because no public store forgets."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentkit.errors import StateCorrupt
from agentkit.memory.sealer import Sealer
from agentkit.memory.sealing.shred import newest_key

NONCE_BYTES = 12
OVERHEAD = 16
"""How many bytes an encrypted artifact is longer than the artifact: the tag of GCM."""


def cipher_of(sealer: Sealer) -> ArtifactCipher:
    """Return the cipher of a wallet's artifacts; it uses the keys that open the wallet's log.

    The wallet's own key stays as an older one: artifacts from before a local key was mixed in
    (`memory.encryption = "shred"`) were encrypted with it.
    """
    info = "agentkit/memory/v1/artifacts"
    return ArtifactCipher(newest_key(sealer, info), sealer.derive(info))


class ArtifactCipher:
    """AES-256-GCM under one key, with the artifact's digest as the additional data.

    `older` keys still decrypt.  The nonce is computed from the digest: an artifact that is
    encrypted again gives the same bytes and is stored once, and two artifacts never share a nonce.
    """

    def __init__(self, key: bytes, *older: bytes) -> None:
        self._keys = tuple(dict.fromkeys((key, *older)))

    def encrypt(self, data: bytes, digest: str) -> bytes:
        """Return an artifact's bytes encrypted; `digest` is the sha256 of `data`."""
        key = self._keys[0]
        return AESGCM(key).encrypt(_nonce(key, digest), data, digest.encode())

    def decrypt(self, stored: bytes, digest: str) -> bytes:
        """Return the artifact that a store holds, encrypted or not; raises StateCorrupt.

        The result has the sha256 `digest`, so a store cannot pass off other bytes.
        """
        if hashlib.sha256(stored).hexdigest() == digest:
            return stored  # stored without encryption
        data = self._try_keys(stored, digest)
        if hashlib.sha256(data).hexdigest() != digest:
            raise StateCorrupt(f"artifact {digest[:12]} does not hash to its own name")
        return data

    def _try_keys(self, stored: bytes, digest: str) -> bytes:
        """Decrypt with the first key that fits; raises StateCorrupt if none does."""
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
