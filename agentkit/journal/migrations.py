"""Brings a state file of an earlier schema to the current one.

The order keeps the money safe, whatever happens in between:

1. One process at a time migrates; others wait for it (a lock on a file beside).
2. The file is opened for this process alone.  Another process that has it open, such as an older
   agentkit, would go on writing in the old layout; then nothing is changed and the user is told.
3. A copy is made beside it (`state.db.schema-N`), checked and on disk before anything changes.
4. All steps are one transaction.  A process that dies leaves the file as it was.

Events and their hashes are never changed.  Records are folded from them anew, by today's fold.
Each step is written out in full and never changes: it must not follow a later layout.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from agentkit.errors import JournalDamaged, StoreUnavailable
from agentkit.journal import integrity
from agentkit.journal.rows import checksum
from agentkit.journal.state_file import new_instance, read_meta, schema_of
from agentkit.journal.store import SCHEMA_VERSION, SqliteStorage
from agentkit.journal.transaction import JournalTransaction

log = logging.getLogger(__name__)

WAIT_FOR_OTHERS = 5.0
"""Seconds to wait until no other process has the file open: one that only reads is soon done."""


def migrate(path: Path) -> None:
    """Bring a state file to the current schema, once a checked copy of it is on disk.

    Raises StoreUnavailable while another process has it open or the copy cannot be written,
    JournalDamaged where its events are not what was written.  Then the file is as it was.
    """
    with _only_migrator(path):
        meta = read_meta(path)
        if meta is None or schema_of(path, meta) == SCHEMA_VERSION:
            return  # another process did it meanwhile
        schema = schema_of(path, meta)
        with closing(_open_alone(path, schema)) as db:
            copy = _write_copy(db, path, schema)
            log.warning("migrating %s from schema %s; a copy is in %s", path, schema, copy)
            _run_steps(db, path, schema)


def _run_steps(db: sqlite3.Connection, path: Path, schema: int) -> None:
    """Run all steps from a schema to the current one, in one transaction.

    So a crash between two steps leaves no file of a schema in between.
    """
    db.execute("begin exclusive")
    try:
        for number in range(schema, SCHEMA_VERSION):
            STEPS[number](db, path)
        _rebuild_records(db, path)
        db.execute("update meta set value=? where name='schema'", (str(SCHEMA_VERSION),))
        db.execute("commit")
    except BaseException:
        if db.in_transaction:
            db.execute("rollback")
        raise


# -- alone ---------------------------------------------------------------------------------------


@contextmanager
def _only_migrator(path: Path) -> Iterator[None]:
    """Hold the lock of the one process that migrates; the kernel frees it if that dies."""
    lock = path.with_name(f"{path.name}.migrating")
    # The folder may be a stranger's: a link would lead out of it, a pipe would never open.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(lock, flags, 0o600), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open_alone(path: Path, schema: int) -> sqlite3.Connection:
    """Open the file so that no other process can open it until this connection is closed.

    In SQLite's exclusive mode the lock on the file is kept between transactions.  It cannot be
    taken while another process has a connection open, even an idle one.  Raises StoreUnavailable
    then.
    """
    db = sqlite3.connect(path, isolation_level=None, timeout=WAIT_FOR_OTHERS)
    try:
        db.execute("pragma locking_mode=exclusive")
        db.execute("pragma synchronous=full")
        db.execute("begin exclusive")
        db.execute("commit")
    except sqlite3.OperationalError as error:
        db.close()
        if "locked" not in str(error):
            raise
        raise StoreUnavailable(
            f"the state file {path} has schema {schema} and must be migrated to {SCHEMA_VERSION},"
            " but another process has it open",
            hint="end the agents and nodes that run on it, then try again; nothing was changed",
        ) from error
    except BaseException:
        db.close()
        raise
    return db


# -- the copy ------------------------------------------------------------------------------------


def copy_of(path: Path, schema: int) -> Path:
    """Return where the copy of a file lies that was made before it left a schema."""
    return path.with_name(f"{path.name}.schema-{schema}")


def _write_copy(db: sqlite3.Connection, path: Path, schema: int) -> Path:
    """Write a copy of the file beside it, check it, and return its path.

    It gets its name only once it is complete and on disk, so that what has the name is whole.
    """
    copy = copy_of(path, schema)
    draft = copy.with_name(f"{copy.name}.part")
    draft.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as target:
            db.backup(target)
            target.execute("pragma journal_mode=delete")  # one file, with nothing beside it
            _check_copy(target, path, of=db)
        shutil.copymode(path, draft)
        _sync(draft)
        draft.replace(copy)
        _sync(copy.parent)  # the new name is in the folder, which is written separately
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return copy


def _check_copy(target: sqlite3.Connection, path: Path, *, of: sqlite3.Connection) -> None:
    """Check that a copy is sound and holds the same rows as the file it is of."""
    (verdict,) = target.execute("pragma integrity_check").fetchone()
    if verdict != "ok":
        raise JournalDamaged(path, "the file itself", verdict)
    if _rows_digest(target) != _rows_digest(of):
        raise StoreUnavailable(
            f"the copy of {path} beside it is not what the file holds",
            hint=f"check the disk that {path.parent} is on; nothing was changed",
        )


def _rows_digest(db: sqlite3.Connection) -> bytes:
    """Return a hash over every row of every table."""
    total = hashlib.sha256()
    tables = db.execute("select name from sqlite_master where type='table' order by name")
    for (table,) in tables.fetchall():
        total.update(f"{table}\n".encode())
        for row in db.execute(f'select * from "{table}"'):  # noqa: S608  # a name out of the file
            total.update(f"{row!r}\n".encode())
    return total.digest()


def _sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- the steps -----------------------------------------------------------------------------------


def _from_1_to_2(db: sqlite3.Connection, path: Path) -> None:
    """Change nothing: schema 2 has the tables of schema 1, with other records and events."""


def _from_2_to_3(db: sqlite3.Connection, path: Path) -> None:
    """Add posts, carrier, note and moved to segments; add the tables carriers and trouble."""
    old = db.execute("select item, stream, first, last, raw, state, at, checksum from outbox")
    segments = [_moved_segment(path, *columns) for columns in old.fetchall()]
    db.execute("drop index if exists outbox_by_stream")
    db.execute("drop table outbox")
    for statement in _TABLES_3:
        db.execute(statement)
    db.executemany("insert into outbox values(?,?,?,?,?,?,?,?,?,?,?,?)", segments)


_TABLES_3 = (
    """create table outbox(
      item text primary key, stream text not null, first integer not null, last integer not null,
      raw blob not null, state text not null, at integer not null, posts integer not null,
      carrier text not null, note text not null, moved integer not null, checksum blob not null
    ) strict""",
    "create index outbox_by_stream on outbox(stream, last)",
    "create index outbox_by_state on outbox(state, stream, first, last, posts, note)",
    """create table carriers(
      tx text primary key, header text not null, items text not null, fee integer not null,
      height integer not null, state text not null, at integer not null, checksum blob not null
    ) strict""",
    """create table trouble(
      name text primary key, said text not null, checksum blob not null
    ) strict""",
)


def _moved_segment(path: Path, *columns: Any) -> tuple[Any, ...]:
    """Return a segment's row of schema 3 for one of schema 2.

    Raises JournalDamaged if the old row's checksum does not fit: the new one would hide that.
    """
    item, stream, first, last, raw, state, at, old_checksum = columns
    if checksum(item, stream, first, last, raw, state, at) != old_checksum:
        raise JournalDamaged(path, f"outbox item {str(item)[:12]}", "it was changed")
    posts = 0
    carrier = ""
    note = ""
    moved = at
    row = (item, stream, first, last, raw, state, at, posts, carrier, note, moved)
    return (*row, checksum(*row))


def _from_3_to_4(db: sqlite3.Connection, path: Path) -> None:
    """Add heads of streams; files that were made early have no bases and no name yet."""
    for statement in _TABLES_4:
        db.execute(statement)
    db.execute("insert or ignore into meta values('instance', ?)", (new_instance(),))
    ends = db.execute(
        "select stream, seq, hash from bases where stream <> ''"
        " union all select stream, seq, hash from events join"
        " (select stream, max(seq) as seq from events group by stream) using (stream, seq)"
    ).fetchall()
    newest: dict[str, tuple[int, bytes]] = {}
    for stream, seq, digest in ends:
        newest[stream] = max(newest.get(stream, (0, b"")), (seq, digest))
    rows = [(name, *end, checksum(name, *end)) for name, end in newest.items()]
    db.executemany("insert into heads values(?,?,?,?)", rows)


_TABLES_4 = (
    """create table if not exists bases(
      stream text primary key, seq integer not null, hash blob not null, body text not null,
      checksum blob not null
    ) strict, without rowid""",
    """create table heads(
      stream text primary key, seq integer not null, hash blob not null, checksum blob not null
    ) strict, without rowid""",
)


Step = Callable[[sqlite3.Connection, Path], None]


def _from_4_to_5(db: sqlite3.Connection, path: Path) -> None:
    """Change nothing: schema 5 has new kinds of events and records, and the same tables."""


STEPS: Mapping[int, Step] = {
    1: _from_1_to_2,
    2: _from_2_to_3,
    3: _from_3_to_4,
    4: _from_4_to_5,
}
"""The step from each schema to the next, by the schema it begins with."""


def _rebuild_records(db: sqlite3.Connection, path: Path) -> None:
    """Put the records in the place of the old ones that this version folds all events into."""
    tx = JournalTransaction(SqliteStorage(db, path))
    _, folded = integrity.fold_again(tx)
    tx.replace_records(folded.rows.values())
