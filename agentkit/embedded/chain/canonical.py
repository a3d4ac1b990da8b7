"""The contracts that lie at the same address on every chain, and how this chain comes by them.

Real chains have the code that others deployed there; ours stands in for it, so that stock clients
of x402 find what they look for (docs/explanation/contracts.md).  A new chain has it from block 0.
A chain that an earlier version began gets it, and newer code of ours, in one irregular block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from eth.abc import StateAPI
from eth_typing import Address

from agentkit.payments.contracts import CANONICAL, load


@dataclass(frozen=True)
class _Own:
    """A contract of ours that chains deploy, and the codes that today's replaces.

    `fact`: under which name a chain notes where it is.  `immutables`: how many bytes the
    constructor wrote behind the code.  `earlier`: sha256 of runtime codes of earlier versions,
    whose variables lie where those of today's do.
    """

    contract: str
    fact: str
    immutables: int
    earlier: frozenset[str]


_OWN = (
    # Before: EIP-3009 by v, r, s only, and of plain keys only.
    _Own(
        "TestUSD",
        "token",
        immutables=64,  # its domain separator and its minter
        earlier=frozenset({"de7bff25cd634e353a83d4d2c6121083aac80714f81117abbd067d85879aac8f"}),
    ),
    # Before: without acceptWithBoth.
    _Own(
        "TaskEscrow",
        "escrow",
        immutables=32,  # its domain separator
        earlier=frozenset({"d139769a849535b377cca7b7515ac86ab52987a2efd92cf9479d9c569af52af2"}),
    ),
)


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
    for own in _OWN:
        place = fact(own.fact)
        newer = _newer(state.get_code(_address(place)), own) if place else None
        if place and newer:
            changed[_address(place)] = newer
            facts[f"code of {own.fact}"] = hashlib.sha256(load(own.contract).bytecode).hexdigest()
    return changed, facts


def _newer(code: bytes, own: _Own) -> bytes | None:
    """Return today's code for a contract that an earlier version deployed, None for any other.

    What the constructor wrote behind the code stays, as do the variables.
    """
    runtime, immutables = code[: -own.immutables], code[-own.immutables :]
    if hashlib.sha256(runtime).hexdigest() not in own.earlier:
        return None
    return load(own.contract).runtime + immutables


def _address(text: str) -> Address:
    return Address(bytes.fromhex(text[2:]))
