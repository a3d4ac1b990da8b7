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

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agentkit.errors import StoreUnavailable, WrongKey
from agentkit.journal.journal import Journal
from agentkit.keys.messages import ItemMessage
from agentkit.memory.arweave.ans104 import parse_item
from agentkit.memory.sealing.sealer import Sealer

KEY_BYTES = 32
KEY_FILE = "shred.key"
LOCAL_KEY = "Sealed-With"
"""The tag that names the local key which opening takes besides the wallet's."""


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


def secret(sealer: Sealer, info: str) -> bytes:
    """Return the key for `info` that takes all that opening takes from now on."""
    return (sealer.derive_mixed if isinstance(sealer, Shredding) else sealer.derive)(info)


async def sealer_of(signer: Sealer, encryption: str, journal: Journal) -> Sealer:
    """Return what seals for a wallet by its settings; a local key is made the first time.

    Raises WrongKey where the newest segment here was sealed with a local key that is gone.
    """
    if encryption != "shred":
        return signer
    newest = await journal.commit(lambda tx: tx.outbox.newest_raw())
    local = newest is not None and LOCAL_KEY in dict(parse_item(newest).tags)
    return shredding(signer, journal.home, make=not local)


def told(sealer: Sealer) -> str:
    """Say what opens that which is sealed from now on."""
    if isinstance(sealer, Shredding):
        return (
            f"sealed with the wallet's key and {KEY_FILE}: restoring needs both, and deleting"
            " that file makes all of it unreadable for ever"
        )
    return "sealed with the wallet's key: it alone restores everything, and cannot be forgotten"


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
    except OSError as error:
        raise WrongKey(f"the local key {path} cannot be read: {error.strerror}") from error
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
    except OSError as error:
        raise StoreUnavailable(
            f"the local key {path} cannot be written: {error.strerror}",
            hint="set AGENTKIT_HOME to a folder that can be written",
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return key
