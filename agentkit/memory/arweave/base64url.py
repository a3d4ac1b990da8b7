"""Base64url as Arweave writes it: no padding, one spelling for every value."""

from __future__ import annotations

import base64
import hashlib

from agentkit.errors import StateCorrupt


def b64url(data: bytes) -> str:
    """Return `data` in base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """Read unpadded base64url; raises StateCorrupt for any other spelling of the bytes."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise StateCorrupt(f"{text[:24]!r} is not base64url") from error
    # The decoder ignores characters outside the alphabet and spare bits at the end, so that many
    # texts give the same bytes.  Only the one that `b64url` writes is accepted.
    if b64url(data) != text:
        raise StateCorrupt(f"{text[:24]!r} is not base64url")
    return data


def name_of(data: bytes) -> str:
    """Return base64url of sha256: an address for a public key, an id for a signature."""
    return b64url(hashlib.sha256(data).digest())
