"""Writes and opens key files: encrypted V3 keystores, and test keys of the embedded network.

Both are JSON files of mode 600.  A test key is not encrypted; its file says that it is one, and it
is refused when a real network is set.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from agentkit.errors import ConfigError, WrongKey
from agentkit.keys import v3
from agentkit.keys.signer import KeySigner

MAX_BYTES = 64 * 1024
"""The largest key file that is read."""

TEST_MARK = "agentkit embedded network: test key, never send real money to it"
"""The field `mark` of a test key's file."""


def create(path: Path, passphrase: str) -> KeySigner:
    """Make a key and write its keystore; raises ConfigError when the file is already there."""
    from eth_keyfile.keyfile import create_keyfile_json

    if not passphrase:
        raise ConfigError("an empty passphrase protects nothing", hint="set AGENTKIT_PASSPHRASE")
    key = secrets.token_bytes(32)
    write_new(path, create_keyfile_json(key, passphrase.encode()))
    return KeySigner(key)


def create_test_key(path: Path) -> KeySigner:
    """Make a test key for the embedded network; raises ConfigError when the file is there."""
    key = secrets.token_bytes(32)
    write_new(path, {"mark": TEST_MARK, "key": key.hex()})
    return KeySigner(key)


def test_secret(path: Path) -> str:
    """Return a test key in hex: the embedded network needs it to make its first block."""
    document = _read(path)
    if document.get("mark") != TEST_MARK:
        raise WrongKey(f"{path} is not a test key")
    return str(document["key"])


def unlock(path: Path, passphrase: str = "", *, real: bool) -> KeySigner:
    """Return the signer of a key file; `real` refuses test keys.

    Raises ConfigError when there is no file, others may read it, or it has another format.
    Raises WrongKey when the passphrase does not open it, or its key has another address than it
    says.
    """
    document = _read(path)
    if document.get("mark") == TEST_MARK:
        if real:
            raise ConfigError(
                f"{path} is a test key of the embedded network and a real network is set",
                hint="make a wallet with `agentkit init`, or leave `network` out",
            )
        return KeySigner(bytes.fromhex(document["key"]))
    return _decrypt(path, v3.checked(document, path), passphrase)


def _decrypt(path: Path, document: dict[str, Any], passphrase: str) -> KeySigner:
    """Return the signer of an encrypted keystore; raises WrongKey."""
    from eth_keyfile.keyfile import decode_keyfile_json

    try:
        signer = KeySigner(bytes(decode_keyfile_json(document, passphrase.encode())))
    except ValueError:
        # `from None`: the frames of the cause hold the passphrase, and a traceback that is
        # printed with its locals would show it.
        if not passphrase:
            raise WrongKey(
                f"no passphrase is set, and {path} needs one", hint="set AGENTKIT_PASSPHRASE"
            ) from None
        raise WrongKey(f"the passphrase does not open {path}") from None
    # Somebody may have changed the address in the file, to have money sent to another one.
    claimed = str(document.get("address", "")).lower().removeprefix("0x")
    if claimed and claimed != signer.address.lower().removeprefix("0x"):
        raise WrongKey(
            f"{path} says it is of 0x{claimed[:40]}, and its key is that of {signer.address}",
            hint="send nothing to the address in the file: it was changed, so use another copy",
        )
    return signer


def copy(path: Path, to: Path, passphrase: str) -> str:
    """Copy a keystore and return its key's address; never over another file.

    It is opened first, to be sure that the passphrase opens the copy.  Raises as `unlock`.
    """
    address = unlock(path, passphrase, real=True).address
    write_new(to, v3.checked(_read(path), path) | {"address": address[2:].lower()})
    return address


def write_new(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file of mode 600, whole or not at all; raises ConfigError if one is there.

    It is written under another name and flushed to disk first, so that a crash leaves no half of
    it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike rename, fails when the name is taken
    except FileExistsError as error:
        raise ConfigError(
            f"{path} already exists", hint="keep it: move it away first if you mean to replace it"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object in a key file; raises ConfigError and WrongKey.

    The mode is read from the open file, so that it is that of the file that is read.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(
                    f"others can read the key file {path}", hint=f"run chmod 600 {path}"
                )
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no keystore at {path}", hint="make one with `agentkit init`"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="set wallet.keystore to a file"
        ) from error
    return v3.parsed(data, path)
