"""A key and a passphrase of their own, in every form in which they may leak."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from eth_keyfile.keyfile import create_keyfile_json

from agentkit.keys import keystore
from agentkit.keys.signer import KeySigner

KEY = hashlib.sha256(b"a key of its own: those of other tests are small numbers").digest()
PASSPHRASE = "correct horse battery staple"


def forms() -> list[bytes]:
    """Return the key and the passphrase in every form that somebody might write them."""
    number = int.from_bytes(KEY, "big")
    texts = [KEY.hex(), KEY.hex().upper(), str(number), hex(number), PASSPHRASE, repr(KEY)[2:-1]]
    texts += [base64.b64encode(KEY).decode(), base64.urlsafe_b64encode(KEY).decode().rstrip("=")]
    return [KEY, *(text.encode() for text in texts)]


def found_in(data: bytes) -> list[bytes]:
    return [form for form in forms() if form in data]


def unlocked(file: Path) -> KeySigner:
    """Return the signer of a new keystore of our key."""
    document = create_keyfile_json(KEY, PASSPHRASE.encode(), kdf="pbkdf2", iterations=1000)
    keystore.write_new(file, document)
    return keystore.unlock(file, PASSPHRASE, real=True)
