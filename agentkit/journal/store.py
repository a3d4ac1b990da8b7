"""The state file: its tables, how it is opened, and the SQL on its rows.

SQL on the outbox stands in `outbox_tables`, that of migrations in `migrations`, and the questions
that are asked before a file is opened in `state_file`.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from agentkit.journal.fork_safety import Connection
from agentkit.journal.outbox_tables import OutboxTables
from agentkit.journal.rows import Base, Head, RecordRow, Row

SCHEMA_VERSION = 5
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

MOST_PARAMETERS = 32_766
"""SQLite's limit for one statement."""


# -- opening -------------------------------------------------------------------------------------


def connect(path: Path | str) -> Connection:
    """Open the state file for the thread that calls; one process writes at a time, others wait."""
    db = sqlite3.connect(
        path,
        isolation_level=None,
        timeout=PATIENCE,
        factory=Connection,
        check_same_thread=False,  # a forked child closes it in the only thread that it has
    )
    try:
        _use_wal(db)
        # WAL alone may lose the newest commits when the power fails, and money with them.
        db.execute("pragma synchronous=full")
    except BaseException:
        db.close()
        raise
    return db


def _use_wal(db: sqlite3.Connection) -> None:
    """Change the file to WAL, in which readers do not wait for the writer.

    Two processes that change it at once get an error at once: SQLite's busy timeout does not
    cover this pragma.  So the waiting is done here.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("pragma journal_mode=wal")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


# -- rows ----------------------------------------------------------------------------------------


class SqliteStorage:
    """The rows of a state file; see `journal.storage.Storage`."""

    def __init__(self, db: sqlite3.Connection, path: Path | str) -> None:
        """`path` is the state file as errors name it."""
        self._db = db
        self.path = path
        self.outbox = OutboxTables(db, path)

    @property
    def instance(self) -> str:
        (name,) = self._db.execute("select value from meta where name='instance'").fetchone()
        return str(name)

    # -- transactions ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction that writes; waits for another process that writes.

        `immediate` takes the lock now.  Taken at the first write, it could fail because another
        process has written since this transaction read.
        """
        self._db.execute("begin immediate")

    def begin_reading(self) -> None:
        """Begin a transaction that sees one state of the file, whoever writes meanwhile."""
        self._db.execute("begin")

    def commit(self) -> None:
        self._db.execute("commit")

    def rollback(self) -> None:
        """Undo everything since `begin`, unless SQLite did so by itself after an error."""
        if self._db.in_transaction:
            self._db.execute("rollback")

    def begin_savepoint(self) -> None:
        """Begin a part of the transaction that can be undone alone."""
        self._db.execute("savepoint work")

    def undo_savepoint(self) -> None:
        """Undo everything since `begin_savepoint`; it must still be ended."""
        self._db.execute("rollback to work")

    def end_savepoint(self) -> None:
        """Make what was written since `begin_savepoint` a part of the transaction."""
        self._db.execute("release work")

    def check_file(self) -> str:
        """Return what SQLite finds wrong with the file itself, "ok" for nothing."""
        (verdict,) = self._db.execute("pragma quick_check").fetchone()
        return str(verdict)

    # -- events ----------------------------------------------------------------------------------

    def insert_events(self, rows: Sequence[Row]) -> None:
        _insert(self._db, "insert into events", rows)

    def events(self, stream: str, after: int, most: int) -> Iterator[Row]:
        rows = self._db.execute(
            "select stream, seq, at, kind, version, body, hash from events"
            " where stream=? and seq>? order by seq limit ?",
            (stream, after, most),
        )
        return (Row(*columns) for columns in rows)

    def newest_event(self, stream: str) -> tuple[int, bytes] | None:
        newest: tuple[int, bytes] | None = self._db.execute(
            "select seq, hash from events where stream=? order by seq desc limit 1", (stream,)
        ).fetchone()
        return newest

    def has_event(self, stream: str, seq: int) -> bool:
        row = self._db.execute("select 1 from events where stream=? and seq=?", (stream, seq))
        return row.fetchone() is not None

    def streams(self) -> list[str]:
        rows = self._db.execute(
            "select stream from events union select stream from bases where stream <> ''"
        )
        return [stream for (stream,) in rows]

    # -- heads and bases -------------------------------------------------------------------------

    def head(self, stream: str) -> Head | None:
        columns = self._db.execute("select * from heads where stream=?", (stream,)).fetchone()
        return Head(*columns) if columns else None

    def heads(self) -> list[str]:
        return [stream for (stream,) in self._db.execute("select stream from heads")]

    def put_head(self, head: Head) -> None:
        self._db.execute("insert or replace into heads values(?,?,?,?)", head)

    def advance_head(self, head: Head) -> None:
        """Write how far a stream has come, unless it has come further already.

        A restore brings back the events from before a snapshot after those that came later.
        """
        self._db.execute(
            "insert into heads values(?,?,?,?) on conflict(stream) do update set"
            " seq=excluded.seq, hash=excluded.hash, checksum=excluded.checksum"
            " where excluded.seq > heads.seq",
            head,
        )

    def base(self, stream: str) -> tuple[Base, bytes] | None:
        row = self._db.execute(
            "select stream, seq, hash, body, checksum from bases where stream=?", (stream,)
        ).fetchone()
        if row is None:
            return None
        *columns, checksum = row
        return Base(*columns), checksum

    def put_base(self, base: Base, checksum: bytes) -> None:
        self._db.execute("insert or replace into bases values(?,?,?,?,?)", (*base, checksum))

    # -- records ---------------------------------------------------------------------------------

    def record(self, kind: str, key: str) -> RecordRow | None:
        columns = self._db.execute(
            "select kind, key, body, checksum from records where kind=? and key=?", (kind, key)
        ).fetchone()
        return RecordRow(*columns) if columns else None

    def records(self, kind: str, prefix: str) -> list[RecordRow]:
        """Return the records of a kind whose key starts with `prefix`, in the order of keys.

        A range of keys uses the table's primary key; `like` or `substr` would read every record.
        """
        end = _end_of(prefix)
        rows = self._db.execute(
            "select kind, key, body, checksum from records"
            " where kind=? and key>=? and (?='' or key<?) order by key",
            (kind, prefix, end, end),
        )
        return [RecordRow(*columns) for columns in rows.fetchall()]

    def all_records(self) -> list[RecordRow]:
        rows = self._db.execute("select kind, key, body, checksum from records order by kind, key")
        return [RecordRow(*columns) for columns in rows.fetchall()]

    def record_checksums(self) -> list[bytes]:
        return [checksum for (checksum,) in self._db.execute("select checksum from records")]

    def put_records(self, rows: Sequence[RecordRow]) -> None:
        _insert(self._db, "insert or replace into records", rows)

    def drop_records(self) -> None:
        self._db.execute("delete from records")

    def drop_record(self, kind: str, key: str) -> None:
        self._db.execute("delete from records where kind=? and key=?", (kind, key))

    # -- blobs -----------------------------------------------------------------------------------

    def insert_blobs(self, blobs: Mapping[str, bytes]) -> None:
        _insert(self._db, "insert or ignore into blobs", list(blobs.items()))

    def blob(self, digest: str) -> bytes | None:
        row = self._db.execute("select data from blobs where digest=?", (digest,)).fetchone()
        return row[0] if row else None

    def blob_digests(self) -> list[str]:
        return [digest for (digest,) in self._db.execute("select digest from blobs")]

    # -- sizes -----------------------------------------------------------------------------------

    def text_size(self, streams: Sequence[str]) -> int:
        """Return the characters in the JSON of all records and of the events of some streams."""
        (total,) = self._db.execute("select sum(length(body)) from records").fetchone()
        size = int(total or 0)
        for stream in streams:
            (total,) = self._db.execute(
                "select sum(length(body)) from events where stream=?", (stream,)
            ).fetchone()
            size += int(total or 0)
        return size


def _insert(
    db: sqlite3.Connection, into: str, rows: Sequence[tuple[str | int | bytes, ...]]
) -> None:
    """Insert rows of equal width by as few statements as SQLite takes."""
    if not rows:
        return
    width = len(rows[0])
    marks = f"({','.join('?' * width)})"
    most = MOST_PARAMETERS // width
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        values = [value for row in part for value in row]
        db.execute(f"{into} values {','.join([marks] * len(part))}", values)


def _end_of(prefix: str) -> str:
    """Return the first text that sorts after everything that starts with `prefix`.

    That is the prefix with its last character raised by one; "" if there is no such text.
    """
    while prefix:
        following = ord(prefix[-1]) + 1
        if following == 0xD800:
            following = 0xE000  # surrogates between these two cannot be written as UTF-8
        if following <= sys.maxunicode:
            return prefix[:-1] + chr(following)
        prefix = prefix[:-1]
    return ""
