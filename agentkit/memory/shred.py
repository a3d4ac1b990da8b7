"""Who signs and seals: a wallet's key alone, or with a local key that can be destroyed.

By default what is sealed opens with the wallet's key alone, so whoever has the key has the whole
past.  With a local key mixed in (`memory.encryption = "shred"`) deleting one small file makes all
of it unreadable for ever, and nothing is restored without that file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agentkit.errors import StoreUnavailable, WrongKey
from agentkit.keys.messages import ItemMessage

KEY_BYTES = 32
KEY_FILE = "shred.key"


class Sealer(Protocol):
    """What sealing asks of a wallet's key; every `keys.signer.Signer` has it."""

    @property
    def address(self) -> str: ...

    @property
    def public_key(self) -> bytes: ...

    def sign_item(self, item: ItemMessage) -> bytes: ...

    def derive(self, info: str) -> bytes: ...


class Shredding:
    """A wallet's key together with a local one; `name` tells local keys apart and says no more."""

    def __init__(self, signer: Sealer, key: bytes) -> None:
        self._signer, self._key = signer, key
        self.name = hmac.new(key, b"agentkit/memory/v1/name", hashlib.sha256).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Shredding({self.address})"

    @property
    def address(self) -> str:
        return self._signer.address

    @property
    def public_key(self) -> bytes:
        return self._signer.public_key

    def sign_item(self, item: ItemMessage) -> bytes:
        return self._signer.sign_item(item)

    def derive(self, info: str) -> bytes:
        """Return what the wallet's key alone gives, as before the local key was there."""
        return self._signer.derive(info)

    def derive_mixed(self, info: str) -> bytes:
        """Return a key that needs both."""
        both = self._signer.derive(info) + self._key
        return HKDF(SHA256(), 32, salt=None, info=info.encode()).derive(both)


def key_path(home: Path) -> Path:
    """Return where a wallet's local key lies."""
    return home / KEY_FILE


def shredding(signer: Sealer, home: Path, *, make: bool) -> Shredding:
    """Return a sealer with the local key of a wallet's folder, made if it may be.

    Raises WrongKey when the file is not there and may not be made, or is none of ours.
    """
    path = key_path(home)
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = _make(path) if make else b""
    except OSError as wrong:
        raise WrongKey(f"the local key {path} cannot be read: {wrong.strerror}") from wrong
    if len(key) != KEY_BYTES:
        raise missing(str(path))
    return Shredding(signer, key)


def missing(where: str) -> WrongKey:
    """Return the error for a local key that is not here."""
    return WrongKey(
        f'what was sealed with memory.encryption = "shred" needs the local key {where},'
        " which is not here; the wallet's key alone does not open it",
        hint=f"put {KEY_FILE} back from your copy; if it was destroyed, that state is gone",
    )


def _make(path: Path) -> bytes:
    """Make a local key; what it returns has reached the disk."""
    key = secrets.token_bytes(KEY_BYTES)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # two processes at once: one key wins
    except FileExistsError:
        return path.read_bytes()
    except OSError as wrong:
        raise StoreUnavailable(
            f"the local key {path} cannot be written: {wrong.strerror}",
            hint="set AGENTKIT_HOME to a folder that can be written",
        ) from wrong
    finally:
        draft.unlink(missing_ok=True)
    return key
