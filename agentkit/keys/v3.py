"""Which key files can be opened here: V3 keystores, and the names of what people have instead.

The format is that of geth and most wallets ("Web3 Secret Storage", version 3).  A key file may come
from anywhere, so what its key derivation may cost is bounded before it is computed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agentkit import strict_json
from agentkit.errors import ConfigError, WrongKey

MAX_SCRYPT_BYTES = 1 << 30
"""geth asks for a quarter of this."""

MAX_ROUNDS = 20_000_000
"""Of PBKDF2; wallets ask for up to a million."""

MAX_PARALLEL = 16

_PRIVATE_KEY = re.compile(rb"\s*(0x)?[0-9a-fA-F]{64}\s*")
_MAKE_V3 = "import the account into a wallet that exports a V3 keystore, for example geth or Clef"


def parsed(data: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON object in a key file, and never show what is in it.

    Raises WrongKey for bytes that are damaged, ConfigError for what is something else.
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
    known = {str(name).lower(): value for name, value in document.items()}
    _check_format(known, path)
    crypto = {str(name).lower(): value for name, value in known["crypto"].items()}
    _check_parts(crypto, path)
    _check_cost(crypto["kdf"], crypto["kdfparams"], path)
    return known | {"crypto": crypto, "version": 3}


def _check_format(known: dict[str, Any], path: Path) -> None:
    if {"data", "iv", "salt"} <= set(known):
        raise ConfigError(f"{path} is a MetaMask vault, not a keystore", hint=_MAKE_V3)
    if "vault" in known or "keyringcontroller" in known:
        raise ConfigError(f"{path} is a browser wallet's state, not a keystore", hint=_MAKE_V3)
    if "encseed" in known or "ethaddr" in known:
        raise ConfigError(f"{path} is a presale wallet, not a V3 keystore", hint=_MAKE_V3)
    version = str(known.get("version", "none"))
    if version == "4":
        raise ConfigError(
            f"{path} is a version 4 keystore, which holds a validator's BLS key", hint=_MAKE_V3
        )
    if version != "3":
        raise ConfigError(f"{path} is a keystore of version {version[:20]}, not 3", hint=_MAKE_V3)
    if not isinstance(known.get("crypto"), dict):
        raise ConfigError(f"{path} is a keystore without its part `crypto`", hint=_MAKE_V3)


def _check_parts(crypto: dict[str, Any], path: Path) -> None:
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
    try:
        return isinstance(value, str) and bool(bytes.fromhex(value.removeprefix("0x")))
    except ValueError:
        return False


def _check_cost(kdf: object, parameters: object, path: Path) -> None:
    """Refuse a key derivation that is not known, or that would take all memory or hours."""
    wanted = {"scrypt": ("n", "r", "p", "dklen"), "pbkdf2": ("c", "dklen")}.get(str(kdf))
    if wanted is None:
        raise ConfigError(
            f"{path} derives its key by {str(kdf)[:30]!r}, not by scrypt or pbkdf2", hint=_MAKE_V3
        )
    values = parameters if isinstance(parameters, dict) else {}
    numbers = [values.get(name) for name in wanted]
    whole = all(type(number) is int and number > 0 for number in numbers)
    if not whole or not _is_hex(values.get("salt")):
        raise ConfigError(
            f"{path} is damaged: its crypto.kdfparams are not those of {kdf}",
            hint="use another copy",
        )
    if values["dklen"] != 32 or not _is_affordable(values):
        raise ConfigError(f"{path} asks for too much work to derive its key", hint=_MAKE_V3)


def _is_affordable(values: dict[str, int]) -> bool:
    if "c" in values:
        return values["c"] <= MAX_ROUNDS
    n = values["n"]
    power_of_two = n > 1 and n & (n - 1) == 0
    return (
        power_of_two and 128 * n * values["r"] <= MAX_SCRYPT_BYTES and values["p"] <= MAX_PARALLEL
    )
