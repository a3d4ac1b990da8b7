"""Whether a state file says what was written: chains, records, blobs, outbox."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from agentkit.errors import AgentKitError, JournalDamaged, StateTooNew
from agentkit.journal.events import WALLET
from agentkit.journal.fold import fold
from agentkit.journal.records import RECORDS
from agentkit.journal.store import Row, Tx, checksum
from agentkit.market.seams import Event, R, Record

LOWEST = -(2**63)
"""Before any number a damaged row may have got."""


class MemoryRecords:
    """Records in a dict: what a second fold of the same events gives."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Record] = {}

    def get(self, record: type[R], key: str) -> R | None:
        found = self.rows.get((record.stored_name, key))
        return found if isinstance(found, record) else None

    def put(self, record: Record) -> None:
        self.rows[record.stored_name, record.key] = record

    def every(self, record: type[R], prefix: str = "") -> list[R]:
        rows = [row for row in self.rows.values() if isinstance(row, record)]
        return sorted((row for row in rows if row.key.startswith(prefix)), key=lambda row: row.key)

    def drop(self, record: type[Record], key: str) -> None:
        self.rows.pop((record.stored_name, key), None)


def chained(path: Path, rows: Iterable[Row], before: bytes, seq: int = 0) -> Iterator[Row]:
    """Yield a chain of rows; raises JournalDamaged at the first that does not fit."""
    for row in rows:
        seq += 1
        if row.seq != seq:
            raise JournalDamaged(path, f"{row.stream} event {seq}", "it is missing")
        before = row.link(before)
        if before != row.hash:
            raise JournalDamaged(path, row.name, "it is not what was written")
        yield row


def readable(path: Path, row: Row) -> Event:
    """Return a row's event; raises JournalDamaged, or StateTooNew for one of a newer version."""
    try:
        return row.event()
    except StateTooNew as newer:
        raise StateTooNew(path, row.name, newer.why) from newer
    except ValueError as wrong:
        raise JournalDamaged(path, row.name, str(wrong)) from wrong


def check_run(db: sqlite3.Connection, path: Path, run: str) -> list[Event]:
    """Return a run's events, its chain checked and that of the wallet's money.

    What a resume needs: records carry checksums of their own, and other runs are no part of it.
    """
    db.execute("begin")  # as below
    tx = Tx(db, path)
    for _ in followed(path, tx, WALLET):
        pass
    return [*tx.earlier(run), *(readable(path, row) for row in followed(path, tx, run))]


def followed(path: Path, tx: Tx, stream: str) -> Iterator[Row]:
    """Yield a stream's rows as far back as they are here, their chain and its end checked."""
    seq, before = tx.start(stream)
    yield from chained(path, tx.rows(stream, LOWEST), before, seq)
    tx.head(stream)  # raises JournalDamaged where the newest events are missing


def check(db: sqlite3.Connection, path: Path) -> int:
    """Check everything in a state file and return its number of events.

    Raises JournalDamaged naming the first place that is wrong.
    """
    db.execute("begin")  # one state of the file, whoever writes meanwhile
    tx = Tx(db, path)
    count, again = refolded(path, tx)
    _check_heads(path, tx)
    _check_records(db, path, again)
    tx.check_records()
    for (digest,) in db.execute("select digest from blobs"):
        tx.kept(digest)
    _check_outbox(db, path)
    return count


def refolded(path: Path, tx: Tx) -> tuple[int, MemoryRecords]:
    """Fold all events of a file anew; return how many are here, and the records they come to.

    Raises JournalDamaged at the first event that is not what was written or cannot be folded.
    """
    again = MemoryRecords()
    _begin_with_base(path, tx, again)
    count = 0
    for stream in tx.streams():
        base = tx.base(stream)
        folded = base.seq if base else 0  # these are in the records that a snapshot brought
        for row in followed(path, tx, stream):
            if row.seq == folded and base and row.hash != base.hash:
                raise JournalDamaged(path, row.name, "it is not the one the snapshot stands on")
            if row.seq > folded:
                _fold_row(path, row, again)
            count += 1
    return count, again


def _fold_row(path: Path, row: Row, again: MemoryRecords) -> None:
    event = readable(path, row)
    try:
        fold(event, row.stream, row.at / 1e6, again)
    except (AgentKitError, ValueError, TypeError) as error:  # it contradicts the events before it
        raise JournalDamaged(path, row.name, str(error)) from error


def _begin_with_base(path: Path, tx: Tx, again: MemoryRecords) -> None:
    """Put in the records that a restored snapshot brought."""
    base = tx.base("")
    try:
        for record in read_records(base.body) if base else ():
            again.put(record)
    except ValueError as wrong:
        raise JournalDamaged(path, "the snapshot it began with", str(wrong)) from wrong


def read_records(text: str) -> list[Record]:
    """Read a JSON list of (kind, JSON) pairs; raises ValueError."""
    try:
        return [RECORDS[kind].model_validate_json(body) for kind, body in json.loads(text)]
    except (KeyError, TypeError, RecursionError) as wrong:
        raise ValueError(f"there is no record {wrong}") from wrong


def _check_heads(path: Path, tx: Tx) -> None:
    """Check that every stream that was written is here, and no other."""
    for stream in sorted(set(tx.written_streams()) ^ set(tx.streams())):
        raise JournalDamaged(path, f"stream {stream!r}", "its events and its head do not agree")


def _check_records(db: sqlite3.Connection, path: Path, again: MemoryRecords) -> None:
    stored: dict[tuple[str, str], str] = {}
    for kind, key, body, known in db.execute("select kind, key, body, checksum from records"):
        if checksum(kind, key, body) != known:
            raise JournalDamaged(path, f"record {kind} {key[:24]!r}", "its checksum does not fit")
        stored[kind, key] = body
    folded = {name: record.encode() for name, record in again.rows.items()}
    for name in sorted(stored.keys() | folded.keys()):
        if stored.get(name) != folded.get(name):
            record = f"record {name[0]} {name[1][:24]!r}"
            raise JournalDamaged(path, record, "the events fold into something else")


def _check_outbox(db: sqlite3.Connection, path: Path) -> None:
    for table, what in (
        ("outbox", "outbox item"),
        ("carriers", "carrier"),
        ("trouble", "trouble"),
    ):
        for *parts, known in db.execute(f"select * from {table}"):  # noqa: S608
            if checksum(*parts) != known:
                name = f"{what} {parts[0][:12]}"
                raise JournalDamaged(path, name, "its checksum does not fit")
