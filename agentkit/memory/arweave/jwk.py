"""The RSA wallet that pays for layer-1 transactions.

`arweave-python-client` reads the key and signs.  Only its `Wallet` is used: its uploader changes
the handling of SIGPIPE for the whole process, and its `send` reports a refusal as success.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentkit import strict_json
from agentkit.errors import WrongKey
from agentkit.file_io import read_bytes
from agentkit.memory.arweave.base64url import b64url, unb64url
from agentkit.memory.arweave.rsa import EXPONENT, KEY_BYTES

HINT = "set memory.jwk to the file of an Arweave wallet"
_FIELDS = ("n", "e", "d", "p", "q", "dp", "dq", "qi")


MAX_BYTES = 64 * 1024
"""The largest wallet file that is read."""


class JwkWallet:
    """An Arweave wallet; loading one takes a third of a second, so load it once, in a thread."""

    def __init__(self, jwk: Mapping[str, Any]) -> None:
        from arweave import Wallet

        if jwk.get("kty") != "RSA" or not all(isinstance(jwk.get(f), str) for f in _FIELDS):
            raise WrongKey("this is not an RSA key in JWK form", hint=HINT)
        try:
            self._wallet = Wallet.from_data(dict(jwk))
        except ValueError as error:
            raise WrongKey("the parts of this JWK do not make an RSA key", hint=HINT) from error
        self.owner = unb64url(jwk["n"].rstrip("="))
        if len(self.owner) != KEY_BYTES:
            raise WrongKey(f"an Arweave wallet is an RSA key of {KEY_BYTES * 8} bits", hint=HINT)

    @classmethod
    def load(cls, path: Path) -> JwkWallet:
        """Read a wallet file; raises WrongKey."""
        try:
            jwk = strict_json.loads(read_bytes(path, MAX_BYTES))
        except ValueError as error:
            raise WrongKey(f"{path} is not a wallet file", hint=HINT) from error
        if not isinstance(jwk, dict):
            raise WrongKey(f"{path} is not a wallet file", hint=HINT)
        return cls(jwk)

    def __repr__(self) -> str:
        return f"JwkWallet({self.address})"

    def __reduce__(self) -> str:
        raise TypeError("a wallet cannot be pickled")

    @property
    def address(self) -> str:
        """The wallet's address: base64url of the hash of its public key."""
        return str(self._wallet.address)

    def sign_tx(self, message: bytes) -> bytes:
        """Sign the deep hash of a layer-1 transaction (RSA-PSS).

        The salt is random, so signing again gives another signature and another id.
        """
        return bytes(self._wallet.sign(message))


def make_jwk() -> dict[str, str]:
    """Return a new wallet key in JWK form; takes a second or so."""
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    key = generate_private_key(EXPONENT, KEY_BYTES * 8).private_numbers()
    public = key.public_numbers
    numbers = (public.n, public.e, key.d, key.p, key.q, key.dmp1, key.dmq1, key.iqmp)
    return {"kty": "RSA", **dict(zip(_FIELDS, map(_text, numbers), strict=True))}


def _text(number: int) -> str:
    return b64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))
