"""What the subjects build on: the records that a fold changes, and which fold an event has.

A fold is the function that says how one kind of event changes the records.  Records change in no
other way, so folding the same events again always gives the same records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from agentkit.errors import IntentMismatch
from agentkit.market.seams import Event, R, Record


class Records(Protocol):
    """The records that folds read and write."""

    def get(self, record: type[R], key: str) -> R | None:
        """Return the record with this key, None if there is none."""

    def put(self, record: Record) -> None:
        """Write a record in the place of the one with the same key, if there is one."""

    def drop(self, record: type[Record], key: str) -> None:
        """Remove the record with this key, if there is one."""

    def every(self, record: type[R], prefix: str = "") -> list[R]:
        """Return the records whose key starts with `prefix`, in the order of their keys."""


Fold = Callable[[Any, str, float, Records], None]
"""Called with an event, its stream, when it was written (unix seconds) and the records."""

FOLDS: dict[type[Event], Fold] = {}
"""The fold of each kind of event that has one; filled when the subjects are imported."""


def folds(event: type[Event]) -> Callable[[Fold], Fold]:
    """Register a function as the fold of a kind of event."""

    def register(change: Fold) -> Fold:
        FOLDS[event] = change
        return change

    return register


def existing(records: Records, record: type[R], key: str) -> R:
    """Return the record that an event changes; raises IntentMismatch if there is none."""
    row = records.get(record, key)
    if row is None:
        raise IntentMismatch(
            f"there is no {record.stored_name} {key[:24]!r} that this could change"
        )
    return row


def update(records: Records, record: type[R], key: str, **fields: object) -> None:
    """Change some fields of an existing record; raises IntentMismatch if there is none."""
    row = existing(records, record, key)
    records.put(row.model_copy(update=fields))
