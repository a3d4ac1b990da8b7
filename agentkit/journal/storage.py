"""What a journal asks of the place where its rows lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agentkit.journal.outbox_tables import OutboxTables
from agentkit.journal.rows import Base, Head, RecordRow, Row


class Storage(Protocol):
    """Rows of a journal: in SQLite (`store.SqliteStorage`) or in dicts (`in_memory`).

    It takes rows and returns them as they are.  What they mean, and whether they are what was
    written, is the business of `transaction.JournalTransaction`.
    """

    @property
    def path(self) -> Path | str:
        """The state file, as errors name it."""

    @property
    def instance(self) -> str:
        """The name of this state file, by which two files of one wallet are told apart."""

    @property
    def outbox(self) -> OutboxTables:
        """The segments that have to reach Arweave; only a state file on disk has them."""

    # -- transactions ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction that writes."""

    def commit(self) -> None:
        """Make what was written durable."""

    def rollback(self) -> None:
        """Undo everything since `begin`."""

    # -- events ----------------------------------------------------------------------------------

    def insert_events(self, rows: Sequence[Row]) -> None:
        """Write rows of events, with their hashes."""

    def events(self, stream: str, after: int, most: int) -> Iterator[Row]:
        """Yield up to `most` rows of a stream after number `after`, in order; -1 is no limit."""

    def newest_event(self, stream: str) -> tuple[int, bytes] | None:
        """Return number and hash of a stream's newest event, None if there is none."""

    def has_event(self, stream: str, seq: int) -> bool:
        """Return whether an event is here."""

    def streams(self) -> list[str]:
        """Return the names of all streams that have an event or a base."""

    # -- heads and bases -------------------------------------------------------------------------

    def head(self, stream: str) -> Head | None:
        """Return how far a stream has come, None if nothing was ever written to it."""

    def heads(self) -> list[str]:
        """Return the names of all streams that have a head."""

    def put_head(self, head: Head) -> None:
        """Write how far a stream has come."""

    def advance_head(self, head: Head) -> None:
        """Write how far a stream has come, unless it has come further already."""

    def base(self, stream: str) -> tuple[Base, bytes] | None:
        """Return the base of a stream with its checksum, None if it has none."""

    def put_base(self, base: Base, checksum: bytes) -> None:
        """Write the base of a stream."""

    # -- records ---------------------------------------------------------------------------------

    def record(self, kind: str, key: str) -> RecordRow | None:
        """Return the row of a record, None if there is none."""

    def records(self, kind: str, prefix: str) -> list[RecordRow]:
        """Return the records of a kind whose key starts with `prefix`, in the order of keys."""

    def all_records(self) -> list[RecordRow]:
        """Return all records, in the order of kinds and keys."""

    def record_checksums(self) -> list[bytes]:
        """Return the checksum column of all records."""

    def put_records(self, rows: Sequence[RecordRow]) -> None:
        """Write records, each in the place of the one with the same key."""

    def drop_records(self) -> None:
        """Remove all records."""

    def drop_record(self, kind: str, key: str) -> None:
        """Remove a record, if it is there."""

    # -- blobs -----------------------------------------------------------------------------------

    def insert_blobs(self, blobs: Mapping[str, bytes]) -> None:
        """Write blobs under their digests; one that is there already stays."""

    def blob(self, digest: str) -> bytes | None:
        """Return a blob, None if there is none."""

    def blob_digests(self) -> list[str]:
        """Return the digests of all blobs."""

    # -- sizes -----------------------------------------------------------------------------------

    def text_size(self, streams: Sequence[str]) -> int:
        """Return the characters in the JSON of all records and of the events of some streams."""
