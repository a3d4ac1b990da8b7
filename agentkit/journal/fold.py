"""Folds events into records.  Nothing else changes a record.

What an event changes stands with its subject, see `journal.subjects`.
"""

from __future__ import annotations

# Importing a subject registers its folds.
from agentkit.journal.folding import FOLDS, Records, folds
from agentkit.journal.subjects import (  # noqa: F401
    budget,
    chain,
    channel_payments,
    channel_sales,
    channels,
    effects,
    escrow,
    knowledge,
    node,
    runs,
    uploads,
    x402,
)
from agentkit.market.seams import Event


def fold(event: Event, stream: str, at: float, records: Records) -> None:
    """Change the records by one event, written at `at` (unix seconds) in `stream`.

    Raises IntentMismatch for an event that contradicts those before it.
    """
    change = FOLDS.get(type(event))
    if change is not None:
        change(event, stream, at, records)


@folds(chain.Restored)
def _fold_restored(event: chain.Restored, stream: str, at: float, records: Records) -> None:
    """Fold the one event that concerns several subjects.

    After a restore the payee of a channel may hold a newer voucher than this state file knows.
    """
    chain.fold_restored(event, at, records)
    channels.doubt_open_channels(records)
    channel_payments.doubt_open_lanes(records)
