"""What became of earlier transactions of a facilitator for the same payment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from agentkit.journal import records as r
from agentkit.market.seams import Transaction


@dataclass(frozen=True, slots=True)
class Tries:
    """How many of a payment's transactions failed, and whether one is under way or done.

    A payment's transactions are named `PREFIX:NUMBER...`.  One that is under way is gone on with:
    verified again, what it draws would be called used.
    """

    failed: int
    is_new: bool

    @classmethod
    def of(cls, tx: Transaction, prefix: str) -> Self:
        """Return the tries of the payment whose intents begin with `prefix`."""
        rows = tx.every(r.EvmTransaction, prefix)
        failed = sum(row.final and not row.succeeded for row in rows)
        return cls(failed=failed, is_new=len(rows) == failed)
