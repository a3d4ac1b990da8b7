"""Encrypted keystores that open fast: deriving the key of a real one is made to take long."""

from __future__ import annotations

import secrets
from pathlib import Path

from eth_keyfile.keyfile import create_keyfile_json

from agentkit.keys import keystore
from agentkit.keys.signer import KeySigner

PASSPHRASE = "correct horse"
ITERATIONS = 1000
"""Of a million in a keystore that agentkit writes, which take a third of a second."""


def write_keystore(path: Path) -> KeySigner:
    """Write a keystore with a new key, which `PASSPHRASE` opens; returns the key's signer."""
    key = secrets.token_bytes(32)
    document = create_keyfile_json(key, PASSPHRASE.encode(), kdf="pbkdf2", iterations=ITERATIONS)
    keystore.write_new(path, document)
    return KeySigner(key)
