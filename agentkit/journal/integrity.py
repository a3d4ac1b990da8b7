"""Checks that a journal is what was written: chains of events, records, blobs, outbox."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from agentkit.errors import AgentKitError, JournalDamaged, StateTooNew
from agentkit.journal.events import WALLET
from agentkit.journal.fold import fold
from agentkit.journal.records import RECORDS
from agentkit.journal.rows import Row
from agentkit.journal.transaction import JournalTransaction
from agentkit.market.seams import Event, R, Record

LOWEST = -(2**63)
"""SQLite's lowest integer: reading after it, a row whose number was damaged is seen too."""


class MemoryRecords:
    """Records in a dict; to fold events a second time."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Record] = {}

    def get(self, record: type[R], key: str) -> R | None:
        row = self.rows.get((record.stored_name, key))
        return row if isinstance(row, record) else None

    def put(self, record: Record) -> None:
        self.rows[record.stored_name, record.key] = record

    def drop(self, record: type[Record], key: str) -> None:
        self.rows.pop((record.stored_name, key), None)

    def every(self, record: type[R], prefix: str = "") -> list[R]:
        rows = [row for row in self.rows.values() if isinstance(row, record)]
        return sorted((row for row in rows if row.key.startswith(prefix)), key=lambda row: row.key)


# -- the chain of a stream -----------------------------------------------------------------------


def check_chain(
    path: Path | str, rows: Iterable[Row], before: bytes, seq: int = 0
) -> Iterator[Row]:
    """Yield the rows of a stream that follow event `seq`, whose hash is `before`.

    Raises JournalDamaged at the first row that is missing or is not what was written.
    """
    for row in rows:
        seq += 1
        if row.seq != seq:
            raise JournalDamaged(path, f"{row.stream} event {seq}", "it is missing")
        before = row.link(before)
        if before != row.hash:
            raise JournalDamaged(path, row.name, "it is not what was written")
        yield row


def read_row(path: Path | str, row: Row) -> Event:
    """Return a row's event; raises JournalDamaged, or StateTooNew for one of a newer version."""
    try:
        return row.event()
    except StateTooNew as newer:
        raise StateTooNew(path, row.name, newer.why) from newer
    except ValueError as error:
        raise JournalDamaged(path, row.name, str(error)) from error


def check_stream(tx: JournalTransaction, stream: str) -> Iterator[Row]:
    """Yield the rows of a stream that are here; raises JournalDamaged, also where the end is cut.

    The end is checked last, so this has to be read to the end.
    """
    seq, before = tx.start(stream)
    yield from check_chain(tx.path, tx.rows(stream, LOWEST), before, seq)
    tx.head(stream)  # raises JournalDamaged where the newest events are missing


def check_run(tx: JournalTransaction, run: str) -> list[Event]:
    """Return a run's events, its chain and that of the wallet's money checked.

    This is what a resume needs.  Records have checksums of their own, which are checked when they
    are read, and other runs do not matter to it.
    """
    for _ in check_stream(tx, WALLET):
        pass
    return [*tx.earlier(run), *(read_row(tx.path, row) for row in check_stream(tx, run))]


# -- the whole file ------------------------------------------------------------------------------


def check(tx: JournalTransaction) -> int:
    """Check everything in a state file and return its number of events.

    Raises JournalDamaged naming the first place that is damaged.
    """
    count, folded = fold_again(tx)
    _check_heads(tx)
    _check_records(tx, folded)
    tx.check_records()
    tx.check_blobs()
    return count


def fold_again(tx: JournalTransaction) -> tuple[int, MemoryRecords]:
    """Fold all events that are here anew; return how many they are, and the records they make.

    Raises JournalDamaged at the first event that is not what was written or cannot be folded.
    """
    folded = MemoryRecords()
    _put_records_of_snapshot(tx, folded)
    count = 0
    for stream in tx.streams():
        base = tx.base(stream)
        # Events up to here are already in the records that the snapshot brought.
        folded_before = base.seq if base else 0
        for row in check_stream(tx, stream):
            if base and row.seq == base.seq and row.hash != base.hash:
                why = "it is not the one the snapshot stands on"
                raise JournalDamaged(tx.path, row.name, why)
            if row.seq > folded_before:
                _fold_row(tx.path, row, folded)
            count += 1
    return count, folded


def _fold_row(path: Path | str, row: Row, folded: MemoryRecords) -> None:
    """Fold one row; raises JournalDamaged if its event contradicts those before it."""
    event = read_row(path, row)
    try:
        fold(event, row.stream, row.at / 1e6, folded)
    except (AgentKitError, ValueError, TypeError) as error:
        raise JournalDamaged(path, row.name, str(error)) from error


def _put_records_of_snapshot(tx: JournalTransaction, folded: MemoryRecords) -> None:
    """Put in the records that a restored snapshot brought, if there was one."""
    base = tx.base("")
    try:
        for record in read_records(base.body) if base else ():
            folded.put(record)
    except ValueError as error:
        raise JournalDamaged(tx.path, "the snapshot it began with", str(error)) from error


def read_records(text: str) -> list[Record]:
    """Read a JSON list of (kind, JSON) pairs; raises ValueError."""
    try:
        return [RECORDS[kind].model_validate_json(body) for kind, body in json.loads(text)]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"there is no record {error}") from error


def _check_heads(tx: JournalTransaction) -> None:
    """Check that every stream that was written is here, and no other."""
    for stream in sorted(set(tx.written_streams()) ^ set(tx.streams())):
        raise JournalDamaged(tx.path, f"stream {stream!r}", "its events and its head do not agree")


def _check_records(tx: JournalTransaction, folded: MemoryRecords) -> None:
    """Check that the stored records are those which the events fold into, byte for byte."""
    stored = {(row.kind, row.key): row.body for row in tx.all_records()}
    expected = {place: record.encode() for place, record in folded.rows.items()}
    for place in sorted(stored.keys() | expected.keys()):
        if stored.get(place) != expected.get(place):
            kind, key = place
            name = f"record {kind} {key[:24]!r}"
            raise JournalDamaged(tx.path, name, "the events fold into something else")
