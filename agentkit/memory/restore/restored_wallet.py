"""A wallet as gateways have it, before it is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentkit.journal.rows import Row
from agentkit.journal.snapshot import Snapshot
from agentkit.memory.arweave.ans104 import Item
from agentkit.memory.sealing.segment_chain import (
    Fork,
    SealedSegment,
)


@dataclass(frozen=True)
class RestoredWallet:
    """What was read of a wallet: the segments of every stream in order, and what is wrong.

    If a `snapshot` was read, it covers all events before those segments; `snapshot_item` is the
    item that it came in.  `warnings` and `problems` are sentences; `problems` are reasons not to go
    on, because steps are missing or damaged.  `anchored` is the head on the chain if what was read
    does not cover it.  `corroborated` says that everything that the anchored head covers was read.
    """

    streams: Mapping[str, tuple[SealedSegment, ...]]
    warnings: tuple[str, ...]
    problems: tuple[str, ...] = ()
    forks: tuple[Fork, ...] = ()
    snapshot: Snapshot | None = None
    snapshot_item: Item | None = None
    anchored: str = ""
    corroborated: bool = False

    @property
    def earlier(self) -> int:
        """How many events the snapshot covers."""
        return self.snapshot.count if self.snapshot else 0

    @property
    def events(self) -> int:
        """How many events were restored, those that the snapshot covers included."""
        parts = (part for chain in self.streams.values() for part in chain)
        return self.earlier + sum(len(part.segment.rows) for part in parts)

    @property
    def names(self) -> set[str]:
        """The names of all streams, those that only the snapshot has included."""
        return set(self.streams) | set(self.snapshot.heads if self.snapshot else ())

    def rows(self, stream: str) -> list[Row]:
        """Return the events of one stream that follow the snapshot, in order."""
        return [row for part in self.streams.get(stream, ()) for row in part.segment.rows]
