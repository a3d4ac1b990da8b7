"""The head anchor: what memory asks of a chain, and no more."""

from __future__ import annotations

from typing import Protocol

PURPOSE = "anchor"
"""Of the intents by which heads are anchored: `anchor:HEAD`."""


class HeadAnchor(Protocol):
    """One hash of this wallet in a contract, moved only from the hash that stands there.

    Heads are 64 hex digits, "" before the first.  Every method may raise StateError, ConfigError
    and ProtocolBroken.
    """

    async def head(self) -> str:
        """Return the head that stands there now."""

    async def advance(self, expected: str, head: str) -> None:
        """Move it on from `expected`, exactly once, and return when that is final.

        Asked for again with the same heads it is the same transaction.  Raises SettlementFailed
        (another head stands there), InsufficientFunds, OverBudget (gas).
        """
