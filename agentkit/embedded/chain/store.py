"""The one file a chain lives in: py-evm's keys and values, raw transactions, an index of logs.

Everything of a block is written in one SQLite transaction that is on the disk when it ends, so a
block is there whole or not at all.  Raw transactions are kept although py-evm has them too: with
them the chain can be executed again should a later py-evm store its state in another way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth.db.backends.base import BaseDB

from agentkit.errors import StoreUnavailable

_SCHEMA = """
create table if not exists pairs (
  key blob primary key, value blob not null
) strict, without rowid;
create table if not exists transactions (
  block integer, position integer, hash blob not null unique, raw blob not null,
  primary key (block, position)
) strict, without rowid;
create table if not exists logs (
  block integer, position integer, block_hash blob not null,
  transaction_position integer not null, transaction_hash blob not null,
  address blob not null, topic0 blob, topic1 blob, topic2 blob, topic3 blob, data blob not null,
  primary key (block, position)
) strict, without rowid;
create index if not exists logs_of_address on logs (address, block);
create table if not exists waiting (
  hash blob primary key, raw blob not null
) strict, without rowid;
create table if not exists facts (name text primary key, value text not null) strict;
"""

_TOPICS = ("topic0", "topic1", "topic2", "topic3")

Wanted = Sequence[bytes]
"""The values a log may have in one place; none at all means any."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A log and where it stands; `position` counts the logs of its block."""

    block: int
    position: int
    block_hash: bytes
    transaction_position: int
    transaction_hash: bytes
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


class Store(BaseDB):
    """The file, which is also the key-value database py-evm works on.

    One process has it at a time; raises StoreUnavailable when another one does.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("pragma locking_mode = exclusive")
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = full")
            self._db.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            self._db.close()
            raise StoreUnavailable(f"the chain in {path} cannot be opened: {error}") from error

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def block(self) -> Iterator[None]:
        """Write all that is set inside, or, on any exception, nothing of it."""
        self._db.execute("begin immediate")
        with self._db:
            yield

    # -- py-evm's keys and values ----------------------------------------------------------------

    def __getitem__(self, key: bytes) -> bytes:
        row = self._db.execute("select value from pairs where key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return bytes(row[0])

    def __setitem__(self, key: bytes, value: bytes) -> None:
        assert self._db.in_transaction, "keys are set only while a block is written"
        self._db.execute("insert or replace into pairs values (?, ?)", (key, value))

    def __delitem__(self, key: bytes) -> None:
        assert self._db.in_transaction, "keys are deleted only while a block is written"
        if not self._db.execute("delete from pairs where key = ?", (key,)).rowcount:
            raise KeyError(key)

    def _exists(self, key: bytes) -> bool:
        return self._db.execute("select 1 from pairs where key = ?", (key,)).fetchone() is not None

    # -- facts about the chain -------------------------------------------------------------------

    def fact(self, name: str) -> str | None:
        row = self._db.execute("select value from facts where name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, name: str, value: str) -> None:
        self._db.execute("insert or replace into facts values (?, ?)", (name, value))

    # -- transactions ----------------------------------------------------------------------------

    def add_transaction(self, block: int, position: int, digest: bytes, raw: bytes) -> None:
        self._db.execute(
            "insert into transactions values (?, ?, ?, ?)", (block, position, digest, raw)
        )

    def find(self, digest: bytes) -> tuple[int, int] | None:
        """Return the block and the position in it of a transaction."""
        sought = "select block, position from transactions where hash = ?"
        row = self._db.execute(sought, (digest,)).fetchone()
        return None if row is None else (row[0], row[1])

    def transactions(self, block: int) -> list[tuple[bytes, bytes]]:
        """Return hash and raw bytes of a block's transactions in order."""
        sought = "select hash, raw from transactions where block = ? order by position"
        return self._db.execute(sought, (block,)).fetchall()

    # -- transactions that wait for an earlier nonce ---------------------------------------------

    def add_waiting(self, digest: bytes, raw: bytes) -> None:
        self._db.execute("insert into waiting values (?, ?)", (digest, raw))

    def remove_waiting(self, digest: bytes) -> None:
        self._db.execute("delete from waiting where hash = ?", (digest,))

    def waiting(self) -> list[bytes]:
        """Return the raw bytes of all transactions that wait."""
        return [bytes(raw) for (raw,) in self._db.execute("select raw from waiting")]

    # -- logs ------------------------------------------------------------------------------------

    def add_log(self, entry: LogEntry) -> None:
        """Index a log by its address and its topics; absent topics are null."""
        topics = (*entry.topics, None, None, None, None)[:4]
        self._db.execute(
            "insert into logs values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.block,
                entry.position,
                entry.block_hash,
                entry.transaction_position,
                entry.transaction_hash,
                entry.address,
                *topics,
                entry.data,
            ),
        )

    def logs(
        self, first: int, last: int, addresses: Wanted = (), topics: Sequence[Wanted] = ()
    ) -> Iterator[LogEntry]:
        """Return the logs of blocks `first` to `last` whose address and topics are wanted."""
        terms = ["block between ? and ?"]
        values: list[int | bytes] = [first, last]
        for column, wanted in [("address", addresses), *zip(_TOPICS, topics, strict=False)]:
            if wanted:
                terms.append(f"{column} in ({', '.join('?' * len(wanted))})")
                values.extend(wanted)
            elif column != "address":
                terms.append(f"{column} is not null")
        where = " and ".join(terms)
        query = f"select * from logs where {where} order by block, position"  # noqa: S608 - columns are ours, values are bound
        return map(_entry, self._db.execute(query, values))


def _entry(row: tuple[Any, ...]) -> LogEntry:
    block, position, block_hash, index, transaction_hash, address, *topics, data = row
    named = tuple(topic for topic in topics if topic is not None)
    return LogEntry(block, position, block_hash, index, transaction_hash, address, named, data)
