"""A journal that ends with its process: to try things out and to measure, never for money."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentkit.errors import StoreUnavailable
from agentkit.journal import integrity
from agentkit.journal.journal import Journal
from agentkit.journal.outbox_tables import OutboxTables
from agentkit.journal.rows import Base, Head, RecordRow, Row
from agentkit.journal.transaction import JournalTransaction
from agentkit.market.seams import Event


class MemoryJournal(Journal):
    """A `Journal` whose rows lie in dicts.  Each work runs at once and is a transaction of its own.

    `home` is where leases lie; nothing else is written there.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "nowhere"
        self.wrote = False
        self._storage = MemoryStorage(self.path)

    def post(
        self, work: Callable[[JournalTransaction], Any], on_outcome: Callable[[Any], None]
    ) -> None:
        """Run a work now; `on_outcome` is called from the loop, as by a journal on disk."""
        outcome = self._commit_alone(work)
        asyncio.get_running_loop().call_soon(on_outcome, outcome)

    def _commit_alone(self, work: Callable[[JournalTransaction], Any]) -> Any:
        """Return what a work returned once it is committed, or the exception that undid it."""
        tx = JournalTransaction(self._storage)
        self._storage.begin()
        try:
            outcome = work(tx)
            tx.flush()
        except Exception as error:  # noqa: BLE001  # the caller gets it, as from the writer
            self._storage.rollback()
            return error
        self._storage.commit()
        return outcome

    async def history(self, stream: str) -> list[Event]:
        return JournalTransaction(self._storage).history(stream)

    async def checked(self, run: str) -> list[Event]:
        return await self.history(run)

    async def check(self) -> int:
        return integrity.check(JournalTransaction(self._storage))

    async def close(self) -> None:
        """Leave everything as it is: a test may open it again."""

    def timed_events(self, stream: str) -> list[tuple[float, Event]]:
        """Return a stream's events, each with when it was written (unix seconds)."""
        rows = self._storage.events(stream, after=0, most=-1)
        return [(row.at / 1e6, row.event()) for row in rows]


class MemoryStorage:
    """The rows of a journal in dicts; see `journal.storage.Storage`."""

    def __init__(self, path: Path) -> None:
        """`path` is what errors name; nothing is written there."""
        self.path = path
        self._events: dict[str, dict[int, Row]] = {}
        self._heads: dict[str, Head] = {}
        self._bases: dict[str, tuple[Base, bytes]] = {}
        self._records: dict[str, dict[str, RecordRow]] = {}
        self._blobs: dict[str, bytes] = {}
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []

    @property
    def instance(self) -> str:
        return ""

    @property
    def outbox(self) -> OutboxTables:
        raise StoreUnavailable(
            "a journal in memory seals nothing",
            hint="open a Journal in a folder to have its events sealed",
        )

    # -- transactions ----------------------------------------------------------------------------

    def begin(self) -> None:
        self._undo.clear()

    def commit(self) -> None:
        self._undo.clear()

    def rollback(self) -> None:
        """Put back what every changed place held before, the newest change first."""
        for table, key, before in reversed(self._undo):
            if before is None:
                table.pop(key, None)
            else:
                table[key] = before
        self._undo.clear()

    def _set(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Write a value into a table, None to remove it, and remember what was there before."""
        self._undo.append((table, key, table.get(key)))
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value

    # -- events ----------------------------------------------------------------------------------

    def insert_events(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._set(self._events.setdefault(row.stream, {}), row.seq, row)

    def events(self, stream: str, after: int, most: int) -> Iterator[Row]:
        rows = self._events.get(stream, {})
        numbers = sorted(seq for seq in rows if seq > after)
        return iter([rows[seq] for seq in (numbers if most < 0 else numbers[:most])])

    def newest_event(self, stream: str) -> tuple[int, bytes] | None:
        head = self._heads.get(stream)
        newest = self._events.get(stream, {}).get(head.seq) if head else None
        return (newest.seq, newest.hash) if newest else None

    def has_event(self, stream: str, seq: int) -> bool:
        return seq in self._events.get(stream, {})

    def streams(self) -> list[str]:
        written = {stream for stream, rows in self._events.items() if rows}
        return sorted(written | (self._bases.keys() - {""}))

    # -- heads and bases -------------------------------------------------------------------------

    def head(self, stream: str) -> Head | None:
        return self._heads.get(stream)

    def heads(self) -> list[str]:
        return list(self._heads)

    def put_head(self, head: Head) -> None:
        self._set(self._heads, head.stream, head)

    def advance_head(self, head: Head) -> None:
        before = self._heads.get(head.stream)
        if before is None or head.seq > before.seq:
            self.put_head(head)

    def base(self, stream: str) -> tuple[Base, bytes] | None:
        return self._bases.get(stream)

    def put_base(self, base: Base, checksum: bytes) -> None:
        self._set(self._bases, base.stream, (base, checksum))

    # -- records ---------------------------------------------------------------------------------

    def record(self, kind: str, key: str) -> RecordRow | None:
        return self._records.get(kind, {}).get(key)

    def records(self, kind: str, prefix: str) -> list[RecordRow]:
        rows = self._records.get(kind, {})
        return [rows[key] for key in sorted(rows) if key.startswith(prefix)]

    def all_records(self) -> list[RecordRow]:
        return [row for kind in sorted(self._records) for row in self.records(kind, "")]

    def record_checksums(self) -> list[bytes]:
        return [row.checksum for row in self.all_records()]

    def put_records(self, rows: Sequence[RecordRow]) -> None:
        for row in rows:
            self._set(self._records.setdefault(row.kind, {}), row.key, row)

    def drop_records(self) -> None:
        for row in self.all_records():
            self.drop_record(row.kind, row.key)

    def drop_record(self, kind: str, key: str) -> None:
        self._set(self._records.setdefault(kind, {}), key, None)

    # -- blobs -----------------------------------------------------------------------------------

    def insert_blobs(self, blobs: Mapping[str, bytes]) -> None:
        for digest, data in blobs.items():
            self._set(self._blobs, digest, data)

    def blob(self, digest: str) -> bytes | None:
        return self._blobs.get(digest)

    def blob_digests(self) -> list[str]:
        return list(self._blobs)

    # -- sizes -----------------------------------------------------------------------------------

    def text_size(self, streams: Sequence[str]) -> int:
        records = sum(len(row.body) for row in self.all_records())
        rows = (row for stream in streams for row in self._events.get(stream, {}).values())
        return records + sum(len(row.body) for row in rows)
