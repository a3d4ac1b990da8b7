"""The gateway's SQLite file: every row that the weave of this machine consists of."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCHEMA = """
create table if not exists entry (
  number integer primary key,
  id text not null unique,
  address text not null,
  owner text not null,
  signature text not null,
  anchor text not null,
  target text not null,
  size integer not null,
  reward integer not null,
  quantity integer not null,
  digest text not null,
  root text not null,
  header text not null,
  bundled_in text not null,
  height integer
) strict;
create index if not exists entry_address on entry (address, height);
create index if not exists entry_root on entry (root) where root <> '';
create index if not exists entry_pending on entry (number) where height is null;
create index if not exists entry_bundled on entry (bundled_in) where bundled_in <> '';
create table if not exists tag (
  entry integer not null references entry,
  position integer not null,
  name text not null,
  value text not null,
  primary key (entry, position)
) strict, without rowid;
create index if not exists tag_value on tag (name, value, entry);
create table if not exists chunk (
  root text not null,
  size integer not null,
  start integer not null,
  stop integer not null,
  digest text not null,
  primary key (root, size, start)
) strict, without rowid;
create table if not exists dropped (id text primary key, reason text not null) strict;
create table if not exists branch (
  number integer primary key, above integer not null, seed blob not null
) strict;
create table if not exists wallet (address text primary key, balance integer not null) strict;
create table if not exists block (height integer primary key, time real not null) strict;
create table if not exists head (
  only integer primary key check (only = 0),
  seed blob not null,
  height integer not null,
  time real not null
) strict;
"""


def open_database(path: Path) -> sqlite3.Connection:
    """Open or make the file; what was committed is on disk."""
    # Opened in one thread and used in another, never by two at once.
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    database.execute("pragma foreign_keys = on")
    database.executescript(_SCHEMA)
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Commit all of what is written inside, or none of it."""
    database.execute("begin immediate")
    try:
        yield
    except BaseException:
        database.execute("rollback")
        raise
    database.execute("commit")
