"""The interface by which memory anchors the head of a wallet's history in a contract."""

from __future__ import annotations

from typing import Protocol

PURPOSE = "anchor"
"""The purpose of intents that anchor a head: `anchor:HEAD`."""


class HeadAnchor(Protocol):
    """One hash of this wallet in a contract, which moves only if the caller names the present one.

    So of two machines with copies of one wallet, only one can go on.  Heads are 64 hex digits,
    "" before the first.  Every method may raise StateError, ConfigError and ProtocolBroken.
    """

    async def head(self) -> str:
        """Return the head that the contract holds now."""

    async def advance(self, expected: str, head: str) -> None:
        """Move the head on from `expected`, exactly once, and return when that is final.

        Called again with the same heads it is the same transaction.  Raises SettlementFailed when
        the contract holds another head, InsufficientFunds, OverBudget (gas).
        """
