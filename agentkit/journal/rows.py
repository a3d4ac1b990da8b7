"""Rows as they are stored, and the hashes and checksums over them.

Events are chained for each stream: the hash of a row covers the hash of the row before and every
other column.  Rows that can change have a checksum over their other columns.  So a byte that was
changed anywhere is noticed when it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from agentkit.errors import StateTooNew
from agentkit.journal.events import VERSION
from agentkit.journal.upgrades import NewerVersion, read_event
from agentkit.market.seams import Event, Record

CHECKSUM_BYTES = 16


def checksum(*columns: str | bytes | int) -> bytes:
    """Return a short checksum over columns, each with its length, so that no two rows collide."""
    total = hashlib.sha256()
    for column in columns:
        data = column if isinstance(column, bytes) else str(column).encode()
        total.update(b"%d:" % len(data) + data)
    return total.digest()[:CHECKSUM_BYTES]


# -- events --------------------------------------------------------------------------------------


def genesis(stream: str) -> bytes:
    """Return the hash that the first event of a stream is chained to."""
    return hashlib.sha256(b"agentkit/1 " + stream.encode()).digest()


def linked(before: bytes, columns: tuple[str, int, int, str, int, str]) -> bytes:
    """Return the hash of an event, by its columns, after one whose hash is `before`."""
    stream, seq, at, kind, version, body = columns
    head = f"{stream}\n{seq}\n{at}\n{kind}\n{version}\n"
    return hashlib.sha256(before + head.encode() + body.encode()).digest()


class Row(NamedTuple):
    """An event as it is stored; `at` in microseconds since 1970."""

    stream: str
    seq: int
    at: int
    kind: str
    version: int
    body: str
    hash: bytes = b""

    def link(self, before: bytes) -> bytes:
        """Return the hash of this row when it follows one whose hash is `before`."""
        return linked(before, self[:6])

    @property
    def name(self) -> str:
        """What errors call this row."""
        return f"{self.stream} event {self.seq} ({self.kind})"

    def event(self) -> Event:
        """Return the event; raises StateTooNew, or ValueError for one that cannot be read."""
        try:
            return read_event(self.kind, self.version, self.body)
        except NewerVersion as newer:
            raise StateTooNew("the log", self.name, str(newer)) from newer


def row_of(stream: str, seq: int, at: float, event: Event) -> Row:
    """Return the row of an event written at `at` (unix seconds), without its hash."""
    return Row(stream, seq, int(at * 1e6), event.stored_name, VERSION, event.encode())


class Head(NamedTuple):
    """How far a stream has come: number and hash of the event that was written last.

    The name of no stream, `TALLY`, stands for the tally of all records.
    """

    stream: str
    seq: int
    hash: bytes
    checksum: bytes

    @classmethod
    def of(cls, stream: str, seq: int, digest: bytes) -> Head:
        """Return a head with its checksum."""
        return cls(stream, seq, digest, checksum(stream, seq, digest))

    @property
    def is_sound(self) -> bool:
        """Whether the checksum fits."""
        return checksum(self.stream, self.seq, self.hash) == self.checksum


class Base(NamedTuple):
    """What a restored snapshot says of the events 1 to `seq` of a stream, which are not here.

    `hash` is that of the last of them.  `body` is the state that a run had after them, as in
    `journal.snapshot`.
    """

    stream: str
    seq: int
    hash: bytes
    body: str


# -- records -------------------------------------------------------------------------------------


class RecordRow(NamedTuple):
    """A record as it is stored: its kind's stored name, its key, its JSON."""

    kind: str
    key: str
    body: str
    checksum: bytes

    @classmethod
    def of(cls, record: Record) -> RecordRow:
        """Return the row of a record, with its checksum."""
        kind = record.stored_name
        key = record.key
        body = record.encode()
        return cls(kind, key, body, checksum(kind, key, body))

    @property
    def is_sound(self) -> bool:
        """Whether the checksum fits."""
        return checksum(self.kind, self.key, self.body) == self.checksum

    @property
    def name(self) -> str:
        """What errors call this row."""
        return f"record {self.kind} {self.key[:24]!r}"


TALLY = "*records"
"""The name under which the tally of records stands among the heads of streams."""

TALLY_MODULUS = 1 << (8 * CHECKSUM_BYTES)


class Tally(NamedTuple):
    """The number of all records, and the sum of their checksums.

    A checksum shows that a record was changed.  The tally shows that one is missing, or that an
    older one was put in its place.
    """

    number: int = 0
    total: int = 0

    @classmethod
    def over(cls, checksums: Iterable[bytes]) -> Tally:
        """Return the tally of records with these checksums."""
        tally = cls()
        for each in checksums:
            tally = tally.plus(each)
        return tally

    def plus(self, added: bytes) -> Tally:
        """Return the tally with one more record, which has this checksum."""
        return Tally(self.number + 1, (self.total + int.from_bytes(added)) % TALLY_MODULUS)

    def minus(self, removed: bytes) -> Tally:
        """Return the tally with one record less, which had this checksum."""
        return Tally(self.number - 1, (self.total - int.from_bytes(removed)) % TALLY_MODULUS)

    @property
    def head(self) -> Head:
        """The tally as it is stored among the heads of streams."""
        return Head.of(TALLY, self.number, self.total.to_bytes(CHECKSUM_BYTES))
