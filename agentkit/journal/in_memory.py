"""A journal that ends with its process: to try things out and to measure, never for money."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from agentkit.journal.fold import fold
from agentkit.journal.integrity import MemoryRecords
from agentkit.journal.journal import Journal
from agentkit.journal.store import Row, genesis, row_of
from agentkit.market.seams import Event, R, Record


class MemoryJournal(Journal):
    """A `Journal` in dicts.  A work runs at once, and its error undoes it alone.

    `home` is where leases lie; nothing else is written.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.path, self.wrote = home, home / "nowhere", False
        self.streams: dict[str, list[tuple[float, Event]]] = {}
        self.records = MemoryRecords()
        self.blobs: dict[str, bytes] = {}

    def post(self, work: Callable[[Any], Any], told: Callable[[Any], None]) -> None:
        tx = MemoryTx(self)
        try:
            outcome = work(tx)
        except Exception as wrong:  # noqa: BLE001  # the caller gets it, as from the writer
            outcome = wrong
        else:
            tx.apply()
        asyncio.get_running_loop().call_soon(told, outcome)

    async def history(self, stream: str) -> list[Event]:
        return [event for _, event in self.streams.get(stream, ())]

    async def checked(self, run: str) -> list[Event]:
        return await self.history(run)

    async def events(self, stream: str, after: int, most: int) -> list[tuple[int, Event]]:
        written = islice(self.streams.get(stream, ()), after, after + most if most >= 0 else None)
        return [(number, event) for number, (_, event) in enumerate(written, after + 1)]

    async def check(self) -> int:
        return sum(map(len, self.streams.values()))

    async def close(self) -> None:
        """Leave everything as it is: a test may open it again."""


class MemoryTx:
    """One transaction on a journal in memory; see `market.seams.Transaction`."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal
        self._now = time.time()
        self._written: dict[str, list[Event]] = {}
        self._changed: dict[tuple[type[Record], str], Record | None] = {}
        self._blobs: dict[str, bytes] = {}

    @property
    def now(self) -> float:
        return self._now

    def append(self, stream: str, event: Event) -> int:
        mine = self._written.setdefault(stream, [])
        mine.append(event)
        fold(event, stream, self._now, self)
        return len(self._journal.streams.get(stream, ())) + len(mine)

    def rows(self, stream: str, after: int = 0, most: int = -1) -> Iterator[Row]:
        """Yield a stream's rows in order, hashed as they would be on disk."""
        before = genesis(stream)
        for seq, (at, event) in enumerate(self._journal.streams.get(stream, ()), 1):
            row = row_of(stream, seq, at, event)
            before = row.link(before)
            if after < seq and (most < 0 or seq <= after + most):
                yield row._replace(hash=before)

    def get(self, record: type[R], key: str) -> R | None:
        if (record, key) in self._changed:
            return self._changed[record, key]  # type: ignore[return-value]  # the key says which
        return self._journal.records.get(record, key)

    def every(self, record: type[R], prefix: str = "") -> list[R]:
        found: dict[str, Any] = {x.key: x for x in self._journal.records.every(record, prefix)}
        changed = {key: row for (kind, key), row in self._changed.items() if kind is record}
        found |= {key: row for key, row in changed.items() if key.startswith(prefix)}
        return [found[key] for key in sorted(found) if found[key] is not None]

    def put(self, record: Record) -> None:
        self._changed[type(record), record.key] = record

    def drop(self, record: type[Record], key: str) -> None:
        self._changed[record, key] = None

    def keep(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._blobs[digest] = data
        return digest

    def kept(self, digest: str) -> bytes | None:
        return self._blobs[digest] if digest in self._blobs else self._journal.blobs.get(digest)

    def apply(self) -> None:
        """Let what was written count."""
        for stream, events in self._written.items():
            written = self._journal.streams.setdefault(stream, [])
            written.extend((self._now, event) for event in events)
        for (kind, key), record in self._changed.items():
            if record is None:
                self._journal.records.drop(kind, key)
            else:
                self._journal.records.put(record)
        self._journal.blobs.update(self._blobs)
