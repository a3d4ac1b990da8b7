"""The tables of what has to reach Arweave: signed segments, and the transactions around them.

A segment is sealed in the same transaction in which it is put here, and stays here for good, so
that whatever a gateway loses can be sent again.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from agentkit.errors import JournalDamaged
from agentkit.journal.rows import checksum

OUTBOX_STATES = ("sealed", "lost", "accepted", "mined", "stable", "read back")
"""How far a segment has come.

`sealed`: signed.  `lost`: the network forgot it.  `accepted`: a gateway took it.  `mined`: it is
in a block.  `stable`: the block is too deep to be undone.  `read back`: it was fetched again, and
it was complete.
"""


class OutgoingSegment(NamedTuple):
    """A signed segment: events `first` to `last` of a stream, and how far it has come.

    `state` is one of OUTBOX_STATES, since `moved`.  `posts` counts how often it was handed to a
    gateway, `carrier` is the layer-1 transaction that contains it, `note` says what is wrong with
    it.  Times in microseconds.
    """

    item: str
    stream: str
    first: int
    last: int
    raw: bytes
    state: str
    at: int
    posts: int = 0
    carrier: str = ""
    note: str = ""
    moved: int = 0

    @property
    def events(self) -> int:
        """How many events it contains."""
        return self.last - self.first + 1


class Carrier(NamedTuple):
    """A signed layer-1 transaction of Arweave that contains segments.

    `header` is its JSON without the data, `items` the ids of the segments in it, in order, each on
    a line; `fee` in winston; `height` that of the newest block when it was signed; `state` is
    `signed`, `posted` or `dropped`.
    """

    tx: str
    header: str
    items: str
    fee: int
    height: int
    state: str
    at: int


class OutboxTables:
    """SQL on the tables `outbox`, `carriers` and `trouble`, within the transaction under way."""

    def __init__(self, db: sqlite3.Connection, path: Path | str) -> None:
        """`path` is the state file as errors name it."""
        self._db = db
        self._path = path

    # -- segments --------------------------------------------------------------------------------

    def put(self, segment: OutgoingSegment) -> None:
        """Write a signed segment that has to reach Arweave, or its new state."""
        self._db.execute(
            "insert or replace into outbox values(?,?,?,?,?,?,?,?,?,?,?,?)",
            (*segment, checksum(*segment)),
        )

    def get(self, item: str) -> OutgoingSegment | None:
        """Return the segment with this id, None if there is none."""
        columns = self._db.execute("select * from outbox where item=?", (item,)).fetchone()
        return self._segment(columns) if columns else None

    def in_states(self, *states: str) -> list[OutgoingSegment]:
        """Return the segments in one of these states, oldest first."""
        marks = ",".join("?" * len(states))
        rows = self._db.execute(
            f"select * from outbox where state in ({marks}) order by at, stream, first",  # noqa: S608
            states,
        )
        return [self._segment(columns) for columns in rows.fetchall()]

    def undoable(self, most: int) -> list[tuple[str, int]]:
        """Return stream and first event of the newest segments that a fork could still undo."""
        return self._db.execute(
            "select stream, first from outbox where state in ('sealed', 'accepted', 'mined')"
            " order by at desc limit ?",
            (most,),
        ).fetchall()

    def newest_raw(self) -> bytes | None:
        """Return the signed bytes of the segment that was sealed last, None if there is none."""
        row = self._db.execute("select raw from outbox order by at desc limit 1").fetchone()
        return row[0] if row else None

    def newest_of(self, stream: str) -> tuple[int, int]:
        """Return `last` and `at` of a stream's newest segment, zeros if it has none."""
        row = self._db.execute(
            "select last, at from outbox where stream=? order by last desc limit 1", (stream,)
        ).fetchone()
        return row or (0, 0)

    def bytes_since(self, at: int, *, without: str) -> int:
        """Return the bytes sealed after a moment, those of the stream `without` not counted."""
        (size,) = self._db.execute(
            "select sum(length(raw)) from outbox where at>? and stream<>?", (at, without)
        ).fetchone()
        return int(size or 0)

    def _segment(self, columns: Any) -> OutgoingSegment:
        """Return the segment of a row; raises JournalDamaged if its checksum does not fit."""
        *fields, stored_checksum = columns
        if checksum(*fields) != stored_checksum:
            raise JournalDamaged(self._path, f"outbox item {fields[0][:12]}", "it was changed")
        return OutgoingSegment(*fields)

    # -- how far the streams are sealed ----------------------------------------------------------

    def unsealed(self) -> list[tuple[str, int]]:
        """Return the streams with events in no segment, and the last event that is in one.

        Events that a restored snapshot stands for count as sealed.
        """
        return self._db.execute(
            "select stream, max(ifnull(last, 0), ifnull(seq, 0)) as done from"
            " (select stream, max(seq) as head from events group by stream)"
            " left join (select stream, max(last) as last from outbox group by stream)"
            " using (stream) left join bases using (stream) where head > done"
        ).fetchall()

    def counts(self) -> list[tuple[str, int, int, int]]:
        """Return for each state: segments, events in them, how often any was posted again."""
        return self._db.execute(
            "select state, count(*), sum(iif(stream='snapshots', 0, last - first + 1)),"
            " sum(max(posts - 1, 0))"
            " from outbox group by state"
        ).fetchall()

    def notes(self) -> list[tuple[str, int]]:
        """Return what is wrong with segments, and with how many of them."""
        return self._db.execute(
            "select note, count(*) from outbox where note <> '' group by note"
        ).fetchall()

    def oldest_event(self, *states: str) -> int | None:
        """Return when the oldest event in segments of these states was written."""
        marks = ",".join("?" * len(states))
        (at,) = self._db.execute(
            "select min(events.at) from outbox join events"  # noqa: S608
            " on events.stream = outbox.stream and events.seq = outbox.first"
            f" where state in ({marks})",
            states,
        ).fetchone()
        return at  # type: ignore[no-any-return]  # the column is an integer

    # -- carriers --------------------------------------------------------------------------------

    def put_carrier(self, carrier: Carrier) -> None:
        """Write a signed layer-1 transaction, or its new state."""
        self._db.execute(
            "insert or replace into carriers values(?,?,?,?,?,?,?,?)",
            (*carrier, checksum(*carrier)),
        )

    def get_carrier(self, tx: str) -> Carrier | None:
        """Return the layer-1 transaction with this id, None if there is none."""
        columns = self._db.execute("select * from carriers where tx=?", (tx,)).fetchone()
        return self._carrier(columns) if columns else None

    def carriers_in(self, *states: str) -> list[Carrier]:
        """Return the layer-1 transactions in one of these states, oldest first."""
        marks = ",".join("?" * len(states))
        rows = self._db.execute(
            f"select * from carriers where state in ({marks}) order by at, tx",  # noqa: S608
            states,
        )
        return [self._carrier(columns) for columns in rows.fetchall()]

    def _carrier(self, columns: Any) -> Carrier:
        """Return the carrier of a row; raises JournalDamaged if its checksum does not fit."""
        *fields, stored_checksum = columns
        if checksum(*fields) != stored_checksum:
            raise JournalDamaged(self._path, f"carrier {fields[0][:12]}", "it was changed")
        return Carrier(*fields)

    # -- trouble ---------------------------------------------------------------------------------

    def put_trouble(self, why: str) -> None:
        """Write down why no upload succeeds; "" when uploads work."""
        row = ("uploads", why)
        self._db.execute("insert or replace into trouble values(?, ?, ?)", (*row, checksum(*row)))

    def trouble(self) -> str:
        """Return why no upload succeeds, "" when uploads work."""
        row = self._db.execute("select said from trouble").fetchone()
        return str(row[0]) if row else ""

    def check(self) -> None:
        """Raise JournalDamaged at the first row of these tables whose checksum does not fit."""
        names = {"outbox": "outbox item", "carriers": "carrier", "trouble": "trouble"}
        for table, name in names.items():
            for *fields, stored_checksum in self._db.execute(f"select * from {table}"):  # noqa: S608
                if checksum(*fields) != stored_checksum:
                    place = f"{name} {fields[0][:12]}"
                    raise JournalDamaged(self._path, place, "its checksum does not fit")
