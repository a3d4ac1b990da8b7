"""The contracts that lie at the same address on every chain, and how this chain comes by them.

Real chains have the code that others deployed there; ours stands in for it, so that stock clients
of x402 find what they look for (docs/explanation/contracts.md).  A new chain has it from block 0.
A chain that an earlier version began gets it, and the token's newer code, in one irregular block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from eth.abc import StateAPI
from eth_typing import Address

from agentkit.payments.contracts import CANONICAL, load

TOKEN_CODE_FACT = "code of token"  # noqa: S105 - the name of a fact: which bytecode made the token
_TOKEN_IMMUTABLES = 64
"""Bytes behind the token's runtime code: its domain separator and its minter."""

_EARLIER_TOKENS = frozenset(
    {
        # 0.1.0 in development: EIP-3009 by v, r, s only, and of plain keys only
        "de7bff25cd634e353a83d4d2c6121083aac80714f81117abbd067d85879aac8f",
    }
)
"""sha256 of the runtime codes of earlier tokens whose variables are those of today's."""


def codes() -> dict[Address, bytes]:
    """Return which code lies at which canonical address."""
    return {_address(place): load(name).runtime for name, place in CANONICAL.items()}


def missing(
    state: StateAPI, fact: Callable[[str], str | None]
) -> tuple[dict[Address, bytes], dict[str, str]]:
    """Return the code that a chain of an earlier version lacks, and the facts to note with it.

    `state` is the chain's newest, `fact` reads what was noted with its blocks.
    """
    changed = {place: code for place, code in codes().items() if state.get_code(place) != code}
    facts: dict[str, str] = {}
    token = fact("token")
    if token:
        newer = _newer_token(state.get_code(_address(token)))
        if newer:
            changed[_address(token)] = newer
            facts[TOKEN_CODE_FACT] = hashlib.sha256(load("TestUSD").bytecode).hexdigest()
    return changed, facts


def _newer_token(code: bytes) -> bytes | None:
    """Return today's code for a token that an earlier version deployed, None for any other.

    What the constructor wrote behind the code stays, as do the variables, which today's code has
    at the same places.
    """
    runtime, immutables = code[:-_TOKEN_IMMUTABLES], code[-_TOKEN_IMMUTABLES:]
    if hashlib.sha256(runtime).hexdigest() not in _EARLIER_TOKENS:
        return None
    return load("TestUSD").runtime + immutables


def _address(text: str) -> Address:
    return Address(bytes.fromhex(text[2:]))
