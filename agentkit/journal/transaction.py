"""One transaction on a journal: reads records, appends events, and folds them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from agentkit.errors import JournalDamaged, RunNotFound
from agentkit.journal.fold import fold
from agentkit.journal.outbox_tables import OutboxTables
from agentkit.journal.rows import (
    TALLY,
    Base,
    Head,
    RecordRow,
    Row,
    Tally,
    checksum,
    genesis,
    row_of,
)
from agentkit.journal.storage import Storage
from agentkit.journal.subjects.runs import Earlier
from agentkit.market.seams import Event, R, Record


class JournalTransaction:
    """One transaction on a journal; see `market.seams.Transaction`.

    What is written is gathered here and reaches the storage by `flush`, in few statements.  Each
    statement of SQLite lets other threads have the interpreter, and the writer thread may wait
    long until it gets it back.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._now = time.time()
        self.appended = 0
        self.forget()

    def forget(self) -> None:
        """Forget what was gathered and read, because the storage was rolled back."""
        self._heads: dict[str, tuple[int, bytes]] = {}
        self._moved_heads: set[str] = set()
        self._new_events: list[Row] = []
        self._records: dict[tuple[type[Record], str], Record | None] = {}
        self._changed_records: set[tuple[type[Record], str]] = set()
        # What the storage has of records that were read or written here: checksum, None for none.
        self._stored_checksums: dict[tuple[type[Record], str], bytes | None] = {}
        self._new_blobs: dict[str, bytes] = {}

    @property
    def now(self) -> float:
        return self._now

    @property
    def path(self) -> Path | str:
        """The state file, as errors name it."""
        return self._storage.path

    @property
    def instance(self) -> str:
        """The name of this state file, by which two files of one wallet are told apart."""
        return self._storage.instance

    @property
    def outbox(self) -> OutboxTables:
        """The segments that have to reach Arweave; they are compared with events, so flush."""
        self.flush()
        return self._storage.outbox

    def flush(self) -> None:
        """Write what was gathered to the storage, so that its queries see it."""
        if self._new_events:
            self._storage.insert_events(self._new_events)
            self._new_events = []
        for stream in self._moved_heads:
            self._storage.advance_head(Head.of(stream, *self._heads[stream]))
        self._moved_heads = set()
        if self._new_blobs:
            self._storage.insert_blobs(self._new_blobs)
            self._new_blobs = {}
        if self._changed_records:
            changed = {place: self._records[place] for place in self._changed_records}
            self._changed_records = set()
            self._write_records(changed)

    # -- events ----------------------------------------------------------------------------------

    def append(self, stream: str, event: Event) -> int:
        seq, before = self.head(stream)
        row = row_of(stream, seq + 1, self._now, event)
        self.insert(row, row.link(before))
        # Folded at the time that is stored, which is rounded: a later fold must see the same.
        fold(event, stream, row.at / 1e6, self)
        self.appended += 1
        return row.seq

    def insert(self, row: Row, digest: bytes) -> None:
        """Write a row as it is, under its hash, without folding it."""
        self._new_events.append(row._replace(hash=digest))
        self._move_head(row.stream, row.seq, digest)

    def insert_all(self, rows: Sequence[Row]) -> None:
        """Write rows of one stream as they are, with their hashes; only a restore does this."""
        self._new_events += rows
        newest = rows[-1]
        self._move_head(newest.stream, newest.seq, newest.hash)

    def _move_head(self, stream: str, seq: int, digest: bytes) -> None:
        self._heads[stream] = (seq, digest)
        self._moved_heads.add(stream)

    def rows(self, stream: str, after: int = 0, most: int = -1) -> Iterator[Row]:
        """Yield up to `most` rows of a stream after number `after`, in order; -1 is no limit."""
        self.flush()
        return self._storage.events(stream, after, most)

    def streams(self) -> list[str]:
        """Return the names of all streams."""
        self.flush()
        return self._storage.streams()

    def hash_at(self, stream: str, seq: int) -> bytes:
        """Return the hash of an event, b"" if it is not here."""
        start, before = self.start(stream)
        if seq <= start:
            return before if seq == start else b""
        return next((row.hash for row in self.rows(stream, seq - 1, 1)), b"")

    def history(self, stream: str) -> list[Event]:
        """Return a stream's events; `Earlier` stands first for those that are not here.

        Raises RunNotFound where nothing says what those did.
        """
        return [*self.earlier(stream), *(row.event() for row in self.rows(stream))]

    # -- how far a stream has come ---------------------------------------------------------------

    def head(self, stream: str) -> tuple[int, bytes]:
        """Return number and hash of a stream's newest event; 0 and the genesis for none.

        Raises JournalDamaged if that is not the event which was written last: without this check,
        events that somebody cut off at the end of a stream would not be missed.
        """
        if stream not in self._heads:
            newest = self._storage.newest_event(stream) or self.start(stream)
            self._check_head(stream, newest)
            self._heads[stream] = newest
        return self._heads[stream]

    def _check_head(self, stream: str, newest: tuple[int, bytes]) -> None:
        """Raise JournalDamaged if a stream does not end with the event that was written last."""
        head = self._storage.head(stream)
        if head is None:
            if newest != (0, genesis(stream)):
                raise JournalDamaged(self.path, f"the head of {stream}", "it is missing")
        elif not head.is_sound:
            raise JournalDamaged(self.path, f"the head of {stream}", "its checksum does not fit")
        elif newest != (head.seq, head.hash):
            why = f"{head.seq} events were written, and it ends with event {newest[0]}"
            raise JournalDamaged(self.path, f"stream {stream}", why)

    def written_streams(self) -> list[str]:
        """Return the names of the streams that ever got an event, whether it is here or not."""
        return [name for name in self._storage.heads() if name != TALLY]

    # -- what a restored snapshot stands for -----------------------------------------------------

    def start(self, stream: str) -> tuple[int, bytes]:
        """Return number and hash of the event after which this file has all of a stream.

        That is 0 and the genesis, unless a snapshot stands for the first events.
        """
        base = self.base(stream)
        if base is None or self._storage.has_event(stream, 1):
            return 0, genesis(stream)
        return base.seq, base.hash

    def earlier(self, stream: str) -> list[Event]:
        """Return the event that stands for those of a stream that are not here, if any are not.

        Raises RunNotFound where the snapshot does not say what they did: the run had ended.
        """
        if not self.start(stream)[0]:
            return []
        base = self.base(stream)
        if base is None or not base.body:
            raise RunNotFound(
                f"the events of {stream} before the snapshot are on Arweave, not here",
                hint=f"bring them with `agentkit memory restore {stream}`",
            )
        return [Earlier(state=base.body)]

    def base(self, stream: str) -> Base | None:
        """Return what stands for a stream's first events, None if they were written here."""
        row = self._storage.base(stream)
        if row is None:
            return None
        base, stored_checksum = row
        if checksum(*base) != stored_checksum:
            raise JournalDamaged(self.path, f"what {stream!r} began with", "it was changed")
        return base

    def put_base(self, base: Base) -> None:
        """Write what stands for a stream's first events; only a restore does this."""
        self._storage.put_base(base, checksum(*base))
        if base.stream:  # the base of all records has no stream
            self._storage.advance_head(Head.of(base.stream, base.seq, base.hash))
        self._heads.pop(base.stream, None)

    def last_sealed(self, stream: str) -> int:
        """Return the number of a stream's newest event that is in a segment or a snapshot."""
        base = self.base(stream)
        last, _ = self.outbox.newest_of(stream)
        return max(last, base.seq if base else 0)

    # -- records ---------------------------------------------------------------------------------

    def get(self, record: type[R], key: str) -> R | None:
        if (record, key) not in self._records:
            row = self._storage.record(record.stored_name, key)
            self._stored_checksums[record, key] = row.checksum if row else None
            self._records[record, key] = self._read(record, row) if row else None
        return self._records[record, key]  # type: ignore[return-value]  # the key says which

    def every(self, record: type[R], prefix: str = "") -> list[R]:
        self.flush()
        rows = self._storage.records(record.stored_name, prefix)
        return [self._read(record, row) for row in rows]

    def put(self, record: Record) -> None:
        """Write a record in the place of the one with the same key; only folds do this."""
        self._change(type(record), record.key, record)

    def drop(self, record: type[Record], key: str) -> None:
        """Remove a record; only folds do this."""
        self._change(record, key, None)

    def _change(self, kind: type[Record], key: str, record: Record | None) -> None:
        self._records[kind, key] = record
        self._changed_records.add((kind, key))

    def all_records(self) -> Iterator[RecordRow]:
        """Yield the rows of all records, each checked; raises JournalDamaged."""
        self.flush()
        for row in self._storage.all_records():
            if not row.is_sound:
                raise JournalDamaged(self.path, row.name, "its checksum does not fit")
            yield row

    def _read(self, record: type[R], row: RecordRow) -> R:
        """Return the record of a row; raises JournalDamaged if it is not what was written."""
        if not row.is_sound:
            raise JournalDamaged(self.path, row.name, "its checksum does not fit")
        try:
            return record.model_validate_json(row.body)
        except (ValueError, ValidationError) as error:
            raise JournalDamaged(self.path, row.name, str(error)) from error

    def _write_records(self, changed: Mapping[tuple[type[Record], str], Record | None]) -> None:
        """Write changed records, and the tally of all records with them."""
        tally = self._tally()
        rows = []
        for place, record in changed.items():
            before = self._stored_checksum(*place)
            if before is not None:
                tally = tally.minus(before)
            row = None if record is None else RecordRow.of(record)
            if row is not None:
                tally = tally.plus(row.checksum)
                rows.append(row)
            self._stored_checksums[place] = row.checksum if row else None

        self._storage.put_head(tally.head)
        self._storage.put_records(rows)
        for (kind, key), record in changed.items():
            if record is None:
                self._storage.drop_record(kind.stored_name, key)

    def _stored_checksum(self, kind: type[Record], key: str) -> bytes | None:
        """Return the checksum that the storage has for a record, None if it has no such record."""
        if (kind, key) not in self._stored_checksums:
            row = self._storage.record(kind.stored_name, key)
            self._stored_checksums[kind, key] = row.checksum if row else None
        return self._stored_checksums[kind, key]

    def replace_records(self, records: Iterable[Record]) -> None:
        """Put these records in the place of all that are stored; only a migration does this."""
        rows = [RecordRow.of(record) for record in records]
        self._storage.drop_records()
        self._storage.put_records(rows)
        self._storage.put_head(Tally.over(row.checksum for row in rows).head)

    # -- the tally of records --------------------------------------------------------------------

    def check_records(self) -> None:
        """Raise JournalDamaged if a record is missing, or is older than the one written last."""
        self.flush()
        if self._tally() != Tally.over(self._storage.record_checksums()):
            raise JournalDamaged(
                self.path, "the records", "they are not those that were written last"
            )

    def _tally(self) -> Tally:
        """Return the tally as it is stored; raises JournalDamaged if it was changed."""
        head = self._storage.head(TALLY)
        if head is None:
            return Tally()
        if not head.is_sound:
            raise JournalDamaged(self.path, "the tally of records", "its checksum does not fit")
        return Tally(head.seq, int.from_bytes(head.hash))

    # -- blobs -----------------------------------------------------------------------------------

    def put_blob(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._new_blobs[digest] = data
        return digest

    def put_blobs(self, blobs: Mapping[str, bytes]) -> None:
        """Store bytes under digests that were just computed from them."""
        self._new_blobs.update(blobs)

    def get_blob(self, digest: str) -> bytes | None:
        if digest in self._new_blobs:
            return self._new_blobs[digest]
        data = self._storage.blob(digest)
        if data is not None and hashlib.sha256(data).hexdigest() != digest:
            raise JournalDamaged(self.path, f"blob {digest[:12]}", "its bytes were changed")
        return data

    def check_blobs(self) -> None:
        """Raise JournalDamaged at the first blob that is not what its digest says."""
        self.flush()
        for digest in self._storage.blob_digests():
            self.get_blob(digest)

    # -- sizes -----------------------------------------------------------------------------------

    def text_size(self, streams: Sequence[str]) -> int:
        """Return the characters in the JSON of all records and of the events of some streams."""
        self.flush()
        return self._storage.text_size(streams)
