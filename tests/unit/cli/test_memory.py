"""`agentkit memory`: restoring with nothing but a key file and a gateway, and looking inside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from agentkit.cli.memory import _rows
from agentkit.journal import events as e
from agentkit.journal import store
from agentkit.journal.outbox_tables import OUTBOX_STATES, OutgoingSegment
from agentkit.journal.transaction import JournalTransaction

RUN = "r00000001"


def test_segments_are_counted_in_whatever_state_they_are() -> None:
    """The last state above all: what was read back is what is safe."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.executescript(store.SCHEMA)
        tx = JournalTransaction(store.SqliteStorage(db, Path("state.db")))
        tx.append(RUN, e.Extra(owner="test", version=1, json_text="1"))
        tx.flush()
        for number, state in enumerate(OUTBOX_STATES, 1):
            tx.outbox.put(OutgoingSegment(f"i{number}", RUN, number, number, b"", state, number))
        assert [row[state] for row in _rows(tx) for state in OUTBOX_STATES] == [1] * 6
