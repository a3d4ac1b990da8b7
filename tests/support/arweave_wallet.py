"""One Arweave wallet for all tests of a process: an RSA key of 4096 bits takes a second to make."""

from __future__ import annotations

from functools import cache

from agentkit.memory.arweave.jwk import JwkWallet, make_jwk


def arweave_key() -> dict[str, str]:
    """Return the wallet's key in JWK form; the caller may change what it gets."""
    return dict(_key())


@cache
def arweave_wallet() -> JwkWallet:
    """Return the wallet, which only reads its key: what it owns is in each test's own gateway."""
    return JwkWallet(arweave_key())


@cache
def _key() -> dict[str, str]:
    return make_jwk()
