"""Names of rails: `x402` on the wallet's home network, `x402@eip155:10` on another one.

Offers, attempts, accounts with payees and messages say their rail by this name, so each of them
says its chain too.  A name without a chain is of the home network, as all names once were.
"""

from __future__ import annotations

_AT = "@"


def rail_on(rail: str, chain: str) -> str:
    """Return the name of a rail on a chain (CAIP-2), "" for the home network's."""
    return f"{rail}{_AT}{chain}" if chain else rail


def base_rail(name: str) -> str:
    """Return a rail's name without its chain: `x402` for `x402@eip155:10`."""
    return name.partition(_AT)[0]


def chain_of(name: str) -> str:
    """Return the chain in a rail's name, "" for the home network's."""
    return name.partition(_AT)[2]
