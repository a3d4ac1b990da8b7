"""The state file: SQLite, and one transaction on it.  All SQL on live state stands here.

Events are chained per stream: hash = sha256(hash before ‖ every other column).  Records carry a
checksum, blobs are named by theirs, so a changed byte anywhere is seen when it is read.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from agentkit.errors import JournalDamaged, RunNotFound, StateTooNew
from agentkit.journal.events import VERSION
from agentkit.journal.fold import fold
from agentkit.journal.fork_safety import Connection
from agentkit.journal.subjects.runs import Earlier
from agentkit.journal.upgrades import NewerVersion, read_event
from agentkit.market.seams import Event, R, Record

SCHEMA_VERSION = 4
"""Layout of the file and meaning of its rows; what raises it stands in CONTRIBUTING.md."""

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
create table if not exists bases(
  stream text primary key, seq integer not null, hash blob not null, body text not null,
  checksum blob not null
) strict, without rowid;
create table if not exists heads(
  stream text primary key, seq integer not null, hash blob not null, checksum blob not null
) strict, without rowid;
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


def connect(path: Path | str) -> Connection:
    """Open the state file for the thread that calls; one writer at a time, others wait."""
    db = sqlite3.connect(
        path,
        isolation_level=None,
        timeout=PATIENCE,
        factory=Connection,
        check_same_thread=False,  # a forked child closes it in the only thread that it has
    )
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


def linked(before: bytes, cells: tuple[str, int, int, str, int, str]) -> bytes:
    """Return the hash of an event, by its columns, after one whose hash is `before`."""
    *short, body = cells
    head = "".join(f"{cell}\n" for cell in short)
    return hashlib.sha256(before + head.encode() + body.encode()).digest()


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
        return linked(before, self[:6])

    @property
    def name(self) -> str:
        return f"{self.stream} event {self.seq} ({self.kind})"

    def event(self) -> Event:
        """Return the event; raises StateTooNew, or ValueError for one that cannot be read."""
        try:
            return read_event(self.kind, self.version, self.body)
        except NewerVersion as newer:
            raise StateTooNew("the log", self.name, str(newer)) from newer


TALLY = "*records"
"""Where, among the heads of streams, stand the number of records and the sum of their checksums."""

CHECKSUM_BYTES = 16
TALLY_MODULUS = 1 << (8 * CHECKSUM_BYTES)

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


class Base(NamedTuple):
    """What stands for the events 1 to `seq` of a stream, whose last has this hash.

    `body`: what they came to, as the snapshot that was restored has it; see `journal.snapshot`.
    """

    stream: str
    seq: int
    hash: bytes
    body: str


def row_of(stream: str, seq: int, at: float, event: Event) -> Row:
    """Return the unhashed row of an event."""
    name = event.stored_name
    return Row(stream, seq, int(at * 1e6), name, VERSION, event.encode())


def record_row(record: Record) -> tuple[str | bytes, ...]:
    """Return the row of a record, with its checksum."""
    kind, key, body = record.stored_name, record.key, record.encode()
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
    return total.digest()[:CHECKSUM_BYTES]


def records_tally(db: sqlite3.Connection) -> tuple[int, int]:
    """Return how many records a file has, and the sum of their checksums."""
    checksums = [x for (x,) in db.execute("select checksum from records")]
    return len(checksums), sum(map(int.from_bytes, checksums)) % TALLY_MODULUS


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
        self._moved: set[str] = set()
        self._rows: list[tuple[str | int | bytes, ...]] = []
        self._records: dict[tuple[type[Record], str], Record | None] = {}
        self._changed: set[tuple[type[Record], str]] = set()
        self._blobs: dict[str, bytes] = {}

    @property
    def now(self) -> float:
        return self._now

    @property
    def instance(self) -> str:
        """What this state file is called, so that two of one wallet can be told apart."""
        (name,) = self._db.execute("select value from meta where name='instance'").fetchone()
        return str(name)

    def flush(self) -> None:
        """Write what was gathered."""
        _insert(self._db, "insert into events", self._rows)
        self._rows = []
        for stream in self._moved:
            self.write_head(stream, *self._heads[stream])
        self._moved = set()
        _insert(self._db, "insert or ignore into blobs", list(self._blobs.items()))
        self._blobs = {}
        changed = {name: self._records[name] for name in self._changed}
        self._changed = set()
        rows = [record_row(record) for record in changed.values() if record is not None]
        self._count_records(changed, rows)
        _insert(self._db, "insert or replace into records", rows)
        for (kind, key), record in changed.items():
            if record is None:
                self._db.execute(
                    "delete from records where kind=? and key=?", (kind.stored_name, key)
                )

    # -- events ----------------------------------------------------------------------------------

    def append(self, stream: str, event: Event) -> int:
        seq, before = self.head(stream)
        row = row_of(stream, seq + 1, self._now, event)
        self.insert(row, row.link(before))
        fold(event, stream, row.at / 1e6, self)
        self.appended += 1
        return row.seq

    def insert(self, row: Row, digest: bytes) -> None:
        """Write a row as it is, under its hash, without folding it."""
        self._rows.append((*row[:6], digest))
        self._move_head(row.stream, row.seq, digest)

    def insert_all(self, rows: Sequence[Row]) -> None:
        """Write hashed rows of one stream as they are; only restoring does this."""
        self._rows += rows
        self._move_head(rows[-1].stream, rows[-1].seq, rows[-1].hash)

    def _move_head(self, stream: str, seq: int, digest: bytes) -> None:
        self._heads[stream] = (seq, digest)
        self._moved.add(stream)

    def write_head(self, stream: str, seq: int, digest: bytes) -> None:
        """Write down how far a stream has come, so that events cut off at its end are missed.

        A head only moves forward: bringing back events from before a snapshot leaves it.
        """
        row = (stream, seq, digest)
        self._db.execute(
            "insert into heads values(?,?,?,?) on conflict(stream) do update set"
            " seq=excluded.seq, hash=excluded.hash, checksum=excluded.checksum"
            " where excluded.seq > heads.seq",
            (*row, checksum(*row)),
        )

    def head(self, stream: str) -> tuple[int, bytes]:
        """Return the number and the hash of a stream's newest event; 0 for none.

        Raises JournalDamaged when that is not the event which was written last.
        """
        if stream not in self._heads:
            found = self._db.execute(
                "select seq, hash from events where stream=? order by seq desc limit 1", (stream,)
            ).fetchone()
            head = found or self.start(stream)
            self._check_head(stream, head)
            self._heads[stream] = head
        return self._heads[stream]

    def _check_head(self, stream: str, head: tuple[int, bytes]) -> None:
        written = self._db.execute(
            "select seq, hash, checksum from heads where stream=?", (stream,)
        ).fetchone()
        if written is None:
            if head != (0, genesis(stream)):
                raise JournalDamaged(self._path, f"the head of {stream}", "it is missing")
            return
        seq, digest, known = written
        if checksum(stream, seq, digest) != known:
            raise JournalDamaged(self._path, f"the head of {stream}", "its checksum does not fit")
        if head != (seq, digest):
            why = f"{seq} events were written, and it ends with event {head[0]}"
            raise JournalDamaged(self._path, f"stream {stream}", why)

    def written_streams(self) -> list[str]:
        """Return the names of the streams that ever got an event, whatever is here of them."""
        found = self._db.execute("select stream from heads where stream <> ?", (TALLY,))
        return [name for (name,) in found]

    def start(self, stream: str) -> tuple[int, bytes]:
        """Return the number and the hash of the event after which this file has all of a stream.

        0 and what stands before the first event, unless a snapshot stands for earlier ones.
        """
        base = self.base(stream)
        whole = (
            base is None
            or self._db.execute(
                "select 1 from events where stream=? and seq=1", (stream,)
            ).fetchone()
        )
        return (base.seq, base.hash) if base and not whole else (0, genesis(stream))

    def rows(self, stream: str, after: int = 0, most: int = -1) -> Iterator[Row]:
        """Yield a stream's rows in order."""
        self.flush()
        found = self._db.execute(
            "select stream, seq, at, kind, version, body, hash from events"
            " where stream=? and seq>? order by seq limit ?",
            (stream, after, most),
        )
        return (Row(*columns) for columns in found)

    def hash_at(self, stream: str, seq: int) -> bytes:
        """Return the hash after an event, nothing when it is not here."""
        start, before = self.start(stream)
        if seq <= start:
            return before if seq == start else b""
        return next((row.hash for row in self.rows(stream, seq - 1, 1)), b"")

    def history(self, stream: str) -> list[Event]:
        """Return a stream's events; `Earlier` stands first for those that are not here.

        Raises RunNotFound when they are not here and nothing tells what they came to.
        """
        return [*self.earlier(stream), *(row.event() for row in self.rows(stream))]

    def earlier(self, stream: str) -> list[Event]:
        """Return what stands for the events of a stream that are not here."""
        if not self.start(stream)[0]:
            return []
        base = self.base(stream)
        if base is None or not base.body:
            raise RunNotFound(
                f"the events of {stream} before the snapshot are on Arweave, not here",
                hint=f"bring them with `agentkit memory restore {stream}`",
            )
        return [Earlier(state=base.body)]

    def streams(self) -> list[str]:
        """Return the names of all streams."""
        self.flush()
        found = self._db.execute(
            "select stream from events union select stream from bases where stream <> ''"
        )
        return [name for (name,) in found]

    # -- records ---------------------------------------------------------------------------------

    def get(self, record: type[R], key: str) -> R | None:
        if (record, key) not in self._records:
            found = self._db.execute(
                "select kind, key, body, checksum from records where kind=? and key=?",
                (record.stored_name, key),
            ).fetchone()
            self._records[record, key] = self._read(record, found) if found else None
        return self._records[record, key]  # type: ignore[return-value]  # the key says which

    def every(self, record: type[R], prefix: str = "") -> list[R]:
        self.flush()
        found = self._db.execute(
            "select kind, key, body, checksum from records"
            " where kind=? and key>=? and (?='' or key<?) order by key",
            (record.stored_name, prefix, end := _end_of(prefix), end),
        )
        return [self._read(record, columns) for columns in found.fetchall()]

    def put(self, record: Record) -> None:
        self._set(type(record), record.key, record)

    def drop(self, record: type[Record], key: str) -> None:
        self._set(record, key, None)

    def all_records(self) -> Iterator[tuple[str, str]]:
        """Yield every record as kind and JSON, checked; raises JournalDamaged."""
        self.flush()
        found = self._db.execute("select kind, key, body, checksum from records order by kind, key")
        for kind, key, body, known in found.fetchall():
            if checksum(kind, key, body) != known:
                raise JournalDamaged(
                    self._path, f"record {kind} {key[:24]!r}", "its checksum does not fit"
                )
            yield kind, body

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

    def check_records(self) -> None:
        """Raise JournalDamaged when a record is missing, or is an older one than was written.

        Checksums show that a record was changed, this shows that the set of them is whole.
        """
        self.flush()
        if self._tally() != records_tally(self._db):
            raise JournalDamaged(
                self._path, "the records", "they are not those that were written last"
            )

    def _count_records(
        self,
        changed: Iterable[tuple[type[Record], str]],
        rows: Sequence[tuple[str | bytes, ...]],
    ) -> None:
        """Keep the tally of all records, before `rows` are written in the place of `changed`."""
        if not changed:
            return
        count, total = self._tally()
        for kind, key in changed:
            before = self._db.execute(
                "select checksum from records where kind=? and key=?", (kind.stored_name, key)
            ).fetchone()
            if before:
                count, total = count - 1, total - int.from_bytes(before[0])
        for row in rows:
            count, total = count + 1, total + int.from_bytes(row[-1])  # type: ignore[arg-type]
        self.write_tally(count, total)

    def _tally(self) -> tuple[int, int]:
        found = self._db.execute(
            "select seq, hash, checksum from heads where stream=?", (TALLY,)
        ).fetchone()
        if found is None:
            return 0, 0
        count, total, known = found
        if checksum(TALLY, count, total) != known:
            raise JournalDamaged(self._path, "the tally of records", "its checksum does not fit")
        return count, int.from_bytes(total)

    def write_tally(self, count: int, total: int) -> None:
        """Write down how many records there are, and the sum of their checksums."""
        row = (TALLY, count, (total % TALLY_MODULUS).to_bytes(CHECKSUM_BYTES))
        self._db.execute("insert or replace into heads values(?,?,?,?)", (*row, checksum(*row)))

    # -- blobs -----------------------------------------------------------------------------------

    def keep(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._blobs[digest] = data
        return digest

    def keep_all(self, blobs: Mapping[str, bytes]) -> None:
        """Store bytes under digests that were just computed from them."""
        self._blobs.update(blobs)

    def kept(self, digest: str) -> bytes | None:
        if digest in self._blobs:
            return self._blobs[digest]
        found = self._db.execute("select data from blobs where digest=?", (digest,)).fetchone()
        if found and hashlib.sha256(found[0]).hexdigest() != digest:
            raise JournalDamaged(self._path, f"blob {digest[:12]}", "its bytes were changed")
        return found[0] if found else None

    # -- bases -----------------------------------------------------------------------------------

    def put_base(self, base: Base) -> None:
        """Write what stands for a stream's first events; only restoring does this."""
        self._db.execute("insert or replace into bases values(?,?,?,?,?)", (*base, checksum(*base)))
        if base.stream:  # the base of all records has no stream
            self.write_head(base.stream, base.seq, base.hash)
        self._heads.pop(base.stream, None)

    def base(self, stream: str) -> Base | None:
        """Return what stands for a stream's first events, None where nothing has to."""
        found = self._db.execute(
            "select stream, seq, hash, body, checksum from bases where stream=?", (stream,)
        ).fetchone()
        if found is None:
            return None
        *parts, known = found
        if checksum(*parts) != known:
            raise JournalDamaged(self._path, f"what {stream!r} began with", "it was changed")
        return Base(*parts)

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
            "select stream, max(ifnull(last, 0), ifnull(seq, 0)) as done from"
            " (select stream, max(seq) as head from events group by stream)"
            " left join (select stream, max(last) as last from outbox group by stream)"
            " using (stream) left join bases using (stream) where head > done"
        ).fetchall()

    def outbox_counts(self) -> list[tuple[str, int, int, int]]:
        """Return for each state: segments, their events, how often any was posted again."""
        return self._db.execute(
            "select state, count(*), sum(iif(stream='snapshots', 0, last - first + 1)),"
            " sum(max(posts - 1, 0))"
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
        base = self.base(stream)
        return max(int(found.fetchone()[0] or 0), base.seq if base else 0)

    def unburied(self, most: int) -> list[tuple[str, int]]:
        """Return stream and first event of the newest segments that a block could still undo."""
        return self._db.execute(
            "select stream, first from outbox where state in ('sealed', 'accepted', 'mined')"
            " order by at desc limit ?",
            (most,),
        ).fetchall()

    def newest_item(self) -> bytes | None:
        """Return the signed bytes that were sealed last, None for nothing."""
        found = self._db.execute("select raw from outbox order by at desc limit 1").fetchone()
        return found[0] if found else None

    def newest(self, stream: str) -> tuple[int, int]:
        """Return `last` and `at` of what was sealed last under a name; zeros for nothing."""
        found = self._db.execute(
            "select last, at from outbox where stream=? order by last desc limit 1", (stream,)
        ).fetchone()
        return found or (0, 0)

    def weight(self, streams: Sequence[str]) -> int:
        """Return the characters in all records, and in the events of some streams."""
        self.flush()
        total = self._db.execute("select sum(length(body)) from records").fetchone()[0] or 0
        for stream in streams:
            found = self._db.execute(
                "select sum(length(body)) from events where stream=?", (stream,)
            ).fetchone()
            total += found[0] or 0
        return int(total)

    def sealed_since(self, at: int, but: str) -> int:
        """Return the bytes sealed after a moment under other names than `but`."""
        found = self._db.execute(
            "select sum(length(raw)) from outbox where at>? and stream<>?", (at, but)
        )
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
