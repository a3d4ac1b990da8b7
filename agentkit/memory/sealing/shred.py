"""Crypto-shredding: sealing with a local key as well, which can be destroyed.

By default sealed segments open with the wallet's key alone, so whoever has that key can read the
whole past.  With `memory.encryption = "shred"` a second key in a small local file is mixed in.
Deleting that file makes everything sealed with it unreadable for ever.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agentkit.errors import StoreUnavailable, WrongKey
from agentkit.journal.journal import Journal
from agentkit.keys.messages import ItemMessage
from agentkit.memory.arweave.ans104 import parse_item
from agentkit.memory.sealer import Sealer

KEY_BYTES = 32
KEY_FILE = "shred.key"
LOCAL_KEY = "Sealed-With"
"""The tag that names the local key that is needed to open an item."""


class Shredding:
    """A sealer with a wallet's key and a local key.

    `name` is a hash that identifies the local key without revealing it.
    """

    def __init__(self, signer: Sealer, key: bytes) -> None:
        self._signer = signer
        self._key = key
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
        """Derive a key from the wallet's key alone, for what was sealed without a local key."""
        return self._signer.derive(info)

    def derive_mixed(self, info: str) -> bytes:
        """Derive a key from both keys, for what was sealed with the local key."""
        both_keys = self._signer.derive(info) + self._key
        return HKDF(SHA256(), 32, salt=None, info=info.encode()).derive(both_keys)


def newest_key(sealer: Sealer, info: str) -> bytes:
    """Return the key with which new data of the purpose `info` is encrypted."""
    if isinstance(sealer, Shredding):
        return sealer.derive_mixed(info)
    return sealer.derive(info)


async def sealer_of(signer: Sealer, encryption: str, journal: Journal) -> Sealer:
    """Return the sealer that `memory.encryption` chooses; a local key is made the first time.

    Raises WrongKey if the newest segment was sealed with a local key whose file is gone: a new
    key would hide that the older segments cannot be opened any more.
    """
    if encryption != "shred":
        return signer
    newest = await journal.commit(lambda tx: tx.outbox.newest_raw())
    had_local_key = newest is not None and LOCAL_KEY in dict(parse_item(newest).tags)
    return open_shredding(signer, journal.home, make=not had_local_key)


def describe_sealing(sealer: Sealer) -> str:
    """Return a sentence that says which keys open what is sealed from now on."""
    if isinstance(sealer, Shredding):
        return (
            f"sealed with the wallet's key and {KEY_FILE}: restoring needs both, and deleting"
            " that file makes all of it unreadable for ever"
        )
    return "sealed with the wallet's key: it alone restores everything, and cannot be forgotten"


def key_path(home: Path) -> Path:
    """Return the path of a wallet's local key; `home` is the wallet's folder."""
    return home / KEY_FILE


def open_shredding(signer: Sealer, home: Path, *, make: bool) -> Shredding:
    """Return a sealer with the local key in a wallet's folder; `make` creates a missing one.

    Raises WrongKey if the file is missing and may not be created, or does not contain a key.
    """
    path = key_path(home)
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = _make_key(path) if make else b""
    except OSError as error:
        raise WrongKey(f"the local key {path} cannot be read: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise local_key_missing(str(path))
    return Shredding(signer, key)


def local_key_missing(name: str) -> WrongKey:
    """Return the error for a local key that is not on this machine; `name` is its path or name."""
    return WrongKey(
        f'what was sealed with memory.encryption = "shred" needs the local key {name},'
        " which is not here; the wallet's key alone does not open it",
        hint=f"put {KEY_FILE} back from your copy; if it was destroyed, that state is gone",
    )


def _make_key(path: Path) -> bytes:
    """Create a local key and return it once it is safe on disk; raises StoreUnavailable.

    Nothing may be sealed with a key that a crash could lose.
    """
    key = secrets.token_bytes(KEY_BYTES)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # fails if another process was first: then its key counts
    except FileExistsError:
        return path.read_bytes()
    except OSError as error:
        raise StoreUnavailable(
            f"the local key {path} cannot be written: {error.strerror}",
            hint="set AGENTKIT_HOME to a folder that can be written",
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return key
