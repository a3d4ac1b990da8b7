"""After everything a wallet does, its key and its passphrase are nowhere that others look."""

from __future__ import annotations

import base64
import hashlib
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from eth_keyfile.keyfile import create_keyfile_json

from agentkit.errors import WrongKey
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


def test_an_error_report_with_every_variable_shows_neither(tmp_path: Path) -> None:
    """What crash reporters send: frames, and what stood in them."""
    file = tmp_path / "keystore.json"
    signer = unlocked(file)

    def report() -> bytes:
        kind, error, trace = sys.exc_info()
        assert kind
        assert error
        whole = traceback.TracebackException(kind, error, trace, capture_locals=True)
        return "".join(whole.format()).encode()

    odd: Any = "no message"
    for failing in (signer.sign_tx, signer.sign_item):
        with pytest.raises(AttributeError):
            try:
                failing(odd)
            except AttributeError:
                assert found_in(report()) == []
                raise
    with pytest.raises(WrongKey):
        try:
            keystore.unlock(file, "wrong", real=True)
        except WrongKey:
            assert b"keystore" in report()
            assert found_in(report()) == []
            raise
