"""Reads V3 keystores, and names the other key files that people have by mistake.

The format is that of geth and most wallets ("Web3 Secret Storage", version 3).  A key file may come
from anywhere, so the cost of its key derivation is bounded before it is computed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agentkit import strict_json
from agentkit.errors import ConfigError, WrongKey

MAX_SCRYPT_BYTES = 1 << 30
"""Memory that scrypt may take; geth asks for a quarter of this."""

MAX_ROUNDS = 20_000_000
"""Rounds of PBKDF2; wallets ask for up to a million."""

MAX_PARALLEL = 16
"""The largest `p` of scrypt."""

_PRIVATE_KEY = re.compile(rb"\s*(0x)?[0-9a-fA-F]{64}\s*")
_MAKE_V3 = "import the account into a wallet that exports a V3 keystore, for example geth or Clef"


def parsed(data: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON object in a key file; no error shows its content.

    Raises WrongKey for what is not JSON, ConfigError for another kind of file.
    """
    if _PRIVATE_KEY.fullmatch(data):
        raise ConfigError(f"{path} is a private key in clear, not a keystore", hint=_MAKE_V3)
    try:
        document = strict_json.loads(data)
    except strict_json.BadJson:
        raise WrongKey(
            f"{path} is not a keystore: it is not JSON, or is damaged",
            hint="set wallet.keystore to a V3 keystore, or make one with `agentkit init`",
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a keystore: it holds no object", hint=_MAKE_V3)
    return document


def checked(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a V3 keystore with the field names that libraries expect; raises ConfigError.

    Some wallets write `Crypto` and `Address`, or the version as text.
    """
    fields = {str(name).lower(): value for name, value in document.items()}
    _check_format(fields, path)
    crypto = {str(name).lower(): value for name, value in fields["crypto"].items()}
    _check_encryption(crypto, path)
    _check_key_derivation(crypto["kdf"], crypto["kdfparams"], path)
    return fields | {"crypto": crypto, "version": 3}


def _check_format(fields: dict[str, Any], path: Path) -> None:
    """Raise ConfigError unless a document is a V3 keystore; names other formats that are known."""
    if {"data", "iv", "salt"} <= set(fields):
        raise ConfigError(f"{path} is a MetaMask vault, not a keystore", hint=_MAKE_V3)
    if "vault" in fields or "keyringcontroller" in fields:
        raise ConfigError(f"{path} is a browser wallet's state, not a keystore", hint=_MAKE_V3)
    if "encseed" in fields or "ethaddr" in fields:
        raise ConfigError(f"{path} is a presale wallet, not a V3 keystore", hint=_MAKE_V3)
    version = str(fields.get("version", "none"))
    if version == "4":
        raise ConfigError(
            f"{path} is a version 4 keystore, which holds a validator's BLS key", hint=_MAKE_V3
        )
    if version != "3":
        raise ConfigError(f"{path} is a keystore of version {version[:20]}, not 3", hint=_MAKE_V3)
    if not isinstance(fields.get("crypto"), dict):
        raise ConfigError(f"{path} is a keystore without its part `crypto`", hint=_MAKE_V3)


def _check_encryption(crypto: dict[str, Any], path: Path) -> None:
    """Raise ConfigError unless the key is encrypted as version 3 says, with all parts in hex."""
    if crypto.get("cipher") != "aes-128-ctr":
        raise ConfigError(
            f"{path} is encrypted with {str(crypto.get('cipher'))[:30]!r}, not with aes-128-ctr",
            hint=_MAKE_V3,
        )
    parameters = crypto.get("cipherparams")
    texts = {
        "crypto.cipherparams.iv": parameters.get("iv") if isinstance(parameters, dict) else None,
        "crypto.ciphertext": crypto.get("ciphertext"),
        "crypto.mac": crypto.get("mac"),
    }
    for name, value in texts.items():
        if not _is_hex(value):
            raise ConfigError(f"{path} is damaged: {name} is not hex", hint="use another copy")


def _is_hex(value: object) -> bool:
    """Return whether a value is a text of at least one byte in hex."""
    try:
        return isinstance(value, str) and bool(bytes.fromhex(value.removeprefix("0x")))
    except ValueError:
        return False


def _check_key_derivation(kdf: object, parameters: object, path: Path) -> None:
    """Raise ConfigError for a key derivation that is unknown, or takes all memory or hours."""
    names = {"scrypt": ("n", "r", "p", "dklen"), "pbkdf2": ("c", "dklen")}.get(str(kdf))
    if names is None:
        raise ConfigError(
            f"{path} derives its key by {str(kdf)[:30]!r}, not by scrypt or pbkdf2", hint=_MAKE_V3
        )
    values = parameters if isinstance(parameters, dict) else {}
    numbers = [values.get(name) for name in names]
    are_positive = all(type(number) is int and number > 0 for number in numbers)
    if not are_positive or not _is_hex(values.get("salt")):
        raise ConfigError(
            f"{path} is damaged: its crypto.kdfparams are not those of {kdf}",
            hint="use another copy",
        )
    if values["dklen"] != 32 or not _is_affordable(values):
        raise ConfigError(f"{path} asks for too much work to derive its key", hint=_MAKE_V3)


def _is_affordable(parameters: dict[str, int]) -> bool:
    """Return whether a key derivation with these parameters is cheap enough.

    PBKDF2 has the rounds `c`; scrypt takes 128 * n * r bytes (RFC 7914), n a power of two.
    """
    if "c" in parameters:
        return parameters["c"] <= MAX_ROUNDS
    n = parameters["n"]
    is_power_of_two = n > 1 and n & (n - 1) == 0
    memory = 128 * n * parameters["r"]
    return is_power_of_two and memory <= MAX_SCRYPT_BYTES and parameters["p"] <= MAX_PARALLEL
