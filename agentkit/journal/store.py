"""The state file: SQLite, and one transaction on it.  All SQL on live state stands here.

Events are chained per stream: hash = sha256(hash before ‖ every other column).  Records carry a
checksum, blobs are named by theirs, so a changed byte anywhere is seen when it is read.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from agentkit.errors import JournalDamaged
from agentkit.journal.events import EVENTS, VERSION
from agentkit.journal.fold import fold
from agentkit.market.seams import Event, R, Record

SCHEMA = """
create table if not exists meta(
  name text primary key, value text not null
) strict, without rowid;
create table if not exists events(
  stream text, seq integer, at integer not null, kind text not null, version integer not null,
  body text not null, hash blob not null,
  primary key(stream, seq)
) strict, without rowid;
create table if not exists records(
  kind text, key text, body text not null, checksum blob not null,
  primary key(kind, key)
) strict, without rowid;
create table if not exists blobs(
  digest text primary key, data blob not null
) strict;
create table if not exists outbox(
  item text primary key, stream text not null, first integer not null, last integer not null,
  raw blob not null, state text not null, at integer not null, posts integer not null,
  carrier text not null, note text not null, moved integer not null, checksum blob not null
) strict;
create index if not exists outbox_by_stream on outbox(stream, last);
create index if not exists outbox_by_state on outbox(state, stream, first, last, posts, note);
create table if not exists carriers(
  tx text primary key, header text not null, items text not null, fee integer not null,
  height integer not null, state text not null, at integer not null, checksum blob not null
) strict;
create table if not exists trouble(
  name text primary key, said text not null, checksum blob not null
) strict;
"""


PATIENCE = 30.0
"""Seconds to wait for another process that writes."""


def connect(path: Path | str) -> sqlite3.Connection:
    """Open the state file for the thread that calls; one writer at a time, others wait."""
    db = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)
    try:
        _use_wal(db)
        db.execute("pragma synchronous=full")
    except BaseException:
        db.close()
        raise
    return db


def _use_wal(db: sqlite3.Connection) -> None:
    """Change the file to WAL; two processes that do it at once get no busy timeout from SQLite."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("pragma journal_mode=wal")
        except sqlite3.OperationalError as wrong:
            if "locked" not in str(wrong) or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def genesis(stream: str) -> bytes:
    """Return what stands before the first event of a stream."""
    return hashlib.sha256(b"agentkit/1 " + stream.encode()).digest()


class NewerVersion(ValueError):
    """An event that this reader is too old for."""


class Row(NamedTuple):
    """An event as it is stored; `at` in microseconds."""

    stream: str
    seq: int
    at: int
    kind: str
    version: int
    body: str
    hash: bytes = b""

    def link(self, before: bytes) -> bytes:
        """Return the hash of this row after one whose hash is `before`."""
        head = f"{self.stream}\n{self.seq}\n{self.at}\n{self.kind}\n{self.version}\n"
        return hashlib.sha256(before + head.encode() + self.body.encode()).digest()

    @property
    def name(self) -> str:
        return f"{self.stream} event {self.seq} ({self.kind})"

    def event(self) -> Event:
        """Return the event; raises ValueError when this reader does not know it."""
        kind = EVENTS.get(self.kind)
        if self.version > VERSION or kind is None:
            raise NewerVersion("it was written by a newer version of agentkit")
        return kind.model_validate_json(self.body)


OUTBOX_STATES = ("sealed", "lost", "accepted", "mined", "stable", "read back")
"""How far a segment has come: signed; forgotten by the weave; taken by a gateway; in a block; too
deep to be undone; fetched again and found whole."""


class Outgoing(NamedTuple):
    """A signed segment: events `first` to `last` of a stream, and how far it has come.

    `state` is one of OUTBOX_STATES, since `moved`; `posts` is how often it was handed over,
    `carrier` the layer-1 transaction it travels in, `note` what is not right with it.  Times in
    microseconds.
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
        return self.last - self.first + 1


class Carrier(NamedTuple):
    """A signed layer-1 transaction around items of the outbox.

    `header` is its JSON without the data, `items` the ids in it, in order, each on a line; `fee`
    in winston; `height` that of the newest block when it was signed; `state` is `signed`,
    `posted` or `dropped`.
    """

    tx: str
    header: str
    items: str
    fee: int
    height: int
    state: str
    at: int


def row_of(stream: str, seq: int, at: float, event: Event) -> Row:
    """Return the unhashed row of an event."""
    name = type(event).__name__
    return Row(stream, seq, int(at * 1e6), name, VERSION, event.encode())


def _record_row(record: Record) -> tuple[str | bytes, ...]:
    kind, key, body = type(record).__name__, record.key, record.encode()
    return kind, key, body, checksum(kind, key, body)


MOST_PARAMETERS = 32_766
"""SQLite's limit for one statement."""


def _insert(
    db: sqlite3.Connection, into: str, rows: Sequence[tuple[str | int | bytes, ...]]
) -> None:
    """Insert rows of equal width by as few statements as SQLite takes."""
    if not rows:
        return
    mark = f"({','.join('?' * len(rows[0]))})"
    most = MOST_PARAMETERS // len(rows[0])
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        db.execute(
            f"{into} values {','.join([mark] * len(part))}", [x for row in part for x in row]
        )


def _end_of(prefix: str) -> str:
    """Return what sorts just after everything that starts with `prefix`, "" for nothing does."""
    while prefix:
        last = ord(prefix[-1]) + 1
        if last <= sys.maxunicode:
            return prefix[:-1] + chr(0xE000 if last == 0xD800 else last)  # no surrogates in UTF-8
        prefix = prefix[:-1]
    return ""


def checksum(*parts: str | bytes | int) -> bytes:
    """Return a short checksum over a row's other columns."""
    total = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        total.update(b"%d:" % len(data) + data)
    return total.digest()[:16]


class Tx:
    """One transaction on the state file; see `market.seams.Transaction`.

    What is written is gathered and reaches SQLite by `flush`, in few statements: each statement
    lets other threads have the interpreter, and it may be long until they give it back.
    """

    def __init__(self, db: sqlite3.Connection, path: Path | str) -> None:
        self._db, self._path = db, path
        self._now = time.time()
        self.appended = 0
        self.forget()

    def forget(self) -> None:
        """Forget what was gathered and read: the database is, or went back to, where it was."""
        self._heads: dict[str, tuple[int, bytes]] = {}
        self._rows: list[tuple[str | int | bytes, ...]] = []
        self._records: dict[tuple[type[Record], str], Record | None] = {}
        self._changed: set[tuple[type[Record], str]] = set()
        self._blobs: dict[str, bytes] = {}

    @property
    def now(self) -> float:
        return self._now

    def flush(self) -> None:
        """Write what was gathered."""
        _insert(self._db, "insert into events", self._rows)
        self._rows = []
        _insert(self._db, "insert or ignore into blobs", list(self._blobs.items()))
        self._blobs = {}
        changed = {name: self._records[name] for name in self._changed}
        self._changed = set()
        rows = [_record_row(record) for record in changed.values() if record is not None]
        _insert(self._db, "insert or replace into records", rows)
        for (kind, key), record in changed.items():
            if record is None:
                self._db.execute("delete from records where kind=? and key=?", (kind.__name__, key))

    # -- events ----------------------------------------------------------------------------------

    def append(self, stream: str, event: Event) -> int:
        seq, before = self.head(stream)
        row = row_of(stream, seq + 1, self._now, event)
        self.insert(row, row.link(before))
        fold(event, stream, row.at / 1e6, self)
        self.appended += 1
        return row.seq

    def insert(self, row: Row, digest: bytes) -> None:
        """Write a row as it is; only restoring does this without folding."""
        self._rows.append((*row[:6], digest))
        self._heads[row.stream] = (row.seq, digest)

    def head(self, stream: str) -> tuple[int, bytes]:
        """Return the number and the hash of a stream's newest event; 0 for none."""
        if stream not in self._heads:
            found = self._db.execute(
                "select seq, hash from events where stream=? order by seq desc limit 1", (stream,)
            ).fetchone()
            self._heads[stream] = found or (0, genesis(stream))
        return self._heads[stream]

    def rows(self, stream: str, after: int = 0, most: int = -1) -> Iterator[Row]:
        """Yield a stream's rows in order."""
        self.flush()
        found = self._db.execute(
            "select stream, seq, at, kind, version, body, hash from events"
            " where stream=? and seq>? order by seq limit ?",
            (stream, after, most),
        )
        return (Row(*columns) for columns in found)

    def streams(self) -> list[str]:
        """Return the names of all streams."""
        self.flush()
        return [name for (name,) in self._db.execute("select distinct stream from events")]

    # -- records ---------------------------------------------------------------------------------

    def get(self, record: type[R], key: str) -> R | None:
        if (record, key) not in self._records:
            found = self._db.execute(
                "select kind, key, body, checksum from records where kind=? and key=?",
                (record.__name__, key),
            ).fetchone()
            self._records[record, key] = self._read(record, found) if found else None
        return self._records[record, key]  # type: ignore[return-value]  # the key says which

    def every(self, record: type[R], prefix: str = "") -> list[R]:
        self.flush()
        found = self._db.execute(
            "select kind, key, body, checksum from records"
            " where kind=? and key>=? and (?='' or key<?) order by key",
            (record.__name__, prefix, end := _end_of(prefix), end),
        )
        return [self._read(record, columns) for columns in found.fetchall()]

    def put(self, record: Record) -> None:
        self._set(type(record), record.key, record)

    def drop(self, record: type[Record], key: str) -> None:
        self._set(record, key, None)

    def _set(self, kind: type[Record], key: str, record: Record | None) -> None:
        self._records[kind, key] = record
        self._changed.add((kind, key))

    def _read(self, record: type[R], columns: tuple[str, str, str, bytes]) -> R:
        kind, key, body, known = columns
        try:
            if checksum(kind, key, body) != known:
                raise ValueError("its checksum does not fit")
            return record.model_validate_json(body)
        except (ValueError, ValidationError) as wrong:
            raise JournalDamaged(self._path, f"record {kind} {key[:24]!r}", str(wrong)) from wrong

    # -- blobs -----------------------------------------------------------------------------------

    def keep(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._blobs[digest] = data
        return digest

    def kept(self, digest: str) -> bytes | None:
        if digest in self._blobs:
            return self._blobs[digest]
        found = self._db.execute("select data from blobs where digest=?", (digest,)).fetchone()
        if found and hashlib.sha256(found[0]).hexdigest() != digest:
            raise JournalDamaged(self._path, f"blob {digest[:12]}", "its bytes were changed")
        return found[0] if found else None

    # -- outbox ----------------------------------------------------------------------------------

    def put_outgoing(self, segment: Outgoing) -> None:
        """Write a signed segment that has to reach Arweave, or its new state."""
        self._db.execute(
            "insert or replace into outbox values(?,?,?,?,?,?,?,?,?,?,?,?)",
            (*segment, checksum(*segment)),
        )

    def outgoing(self, *states: str) -> list[Outgoing]:
        """Return the signed segments in one of `states`, oldest first."""
        marks = ",".join("?" * len(states))
        found = self._db.execute(
            f"select * from outbox where state in ({marks}) order by at, stream, first",  # noqa: S608
            states,
        )
        return [self._outgoing(*columns) for columns in found.fetchall()]

    def in_outbox(self, item: str) -> Outgoing | None:
        """Return the signed segment of this id."""
        found = self._db.execute("select * from outbox where item=?", (item,)).fetchone()
        return self._outgoing(*found) if found else None

    def unsealed(self) -> list[tuple[str, int]]:
        """Return the streams with events in no segment, and the last event that is in one."""
        self.flush()
        return self._db.execute(
            "select stream, ifnull(last, 0) from"
            " (select stream, max(seq) as head from events group by stream)"
            " left join (select stream, max(last) as last from outbox group by stream)"
            " using (stream) where head > ifnull(last, 0)"
        ).fetchall()

    def outbox_counts(self) -> list[tuple[str, int, int, int]]:
        """Return for each state: segments, their events, how often any was posted again."""
        return self._db.execute(
            "select state, count(*), sum(last - first + 1), sum(max(posts - 1, 0))"
            " from outbox group by state"
        ).fetchall()

    def outbox_notes(self) -> list[tuple[str, int]]:
        """Return what is wrong with segments, and how many it is so with."""
        return self._db.execute(
            "select note, count(*) from outbox where note <> '' group by note"
        ).fetchall()

    def oldest_outgoing(self, *states: str) -> int | None:
        """Return when the oldest event in segments of these states was written."""
        marks = ",".join("?" * len(states))
        found = self._db.execute(
            "select min(events.at) from outbox join events"  # noqa: S608
            " on events.stream = outbox.stream and events.seq = outbox.first"
            f" where state in ({marks})",
            states,
        )
        return found.fetchone()[0]  # type: ignore[no-any-return]  # the column is an integer

    def last_sealed(self, stream: str) -> int:
        """Return the number of the newest event of a stream that stands in a segment."""
        found = self._db.execute("select max(last) from outbox where stream=?", (stream,))
        return int(found.fetchone()[0] or 0)

    def _outgoing(self, *columns: Any) -> Outgoing:
        *parts, known = columns
        if checksum(*parts) != known:
            raise JournalDamaged(self._path, f"outbox item {parts[0][:12]}", "it was changed")
        return Outgoing(*parts)

    def put_carrier(self, carrier: Carrier) -> None:
        """Write a signed layer-1 transaction, or its new state."""
        self._db.execute(
            "insert or replace into carriers values(?,?,?,?,?,?,?,?)",
            (*carrier, checksum(*carrier)),
        )

    def carriers(self, *states: str) -> list[Carrier]:
        """Return the layer-1 transactions in one of `states`, oldest first."""
        marks = ",".join("?" * len(states))
        found = self._db.execute(
            f"select * from carriers where state in ({marks}) order by at, tx",  # noqa: S608
            states,
        )
        return [self._carrier(*columns) for columns in found.fetchall()]

    def carrier(self, tx: str) -> Carrier | None:
        """Return the layer-1 transaction of this id."""
        found = self._db.execute("select * from carriers where tx=?", (tx,)).fetchone()
        return self._carrier(*found) if found else None

    def _carrier(self, *columns: Any) -> Carrier:
        *parts, known = columns
        if checksum(*parts) != known:
            raise JournalDamaged(self._path, f"carrier {parts[0][:12]}", "it was changed")
        return Carrier(*parts)

    def put_trouble(self, said: str) -> None:
        """Write down why uploads stand still; "" when they do not."""
        row = ("uploads", said)
        self._db.execute("insert or replace into trouble values(?, ?, ?)", (*row, checksum(*row)))

    def trouble(self) -> str:
        """Return why uploads stand still, "" when they do not."""
        found = self._db.execute("select said from trouble").fetchone()
        return str(found[0]) if found else ""
