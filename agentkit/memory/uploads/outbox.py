"""The outbox: signed segments on their way to Arweave, each step of it on disk before the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.journal.transaction import JournalTransaction

WAITING = ("sealed", "lost")
UNDER_WAY = ("accepted", "mined", "stable")

T = TypeVar("T")


class Outbox:
    """The segments of one wallet's journal, by how far they have come."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def commit(self, work: Callable[[JournalTransaction], T]) -> T:
        return await self._journal.commit(work)

    async def waiting(self) -> list[OutgoingSegment]:
        """Return what has to be handed over, oldest first.

        The wallet goes before its runs: whoever restores must not know less of the money than of
        what was bought with it.
        """
        found = await self.commit(lambda tx: tx.outbox.in_states(*WAITING))
        return sorted(found, key=lambda s: (s.at, s.stream != e.WALLET))

    async def under_way(self) -> list[OutgoingSegment]:
        """Return what was handed over and not yet found whole for good."""
        return await self.commit(lambda tx: tx.outbox.in_states(*UNDER_WAY))

    async def accepted(self, items: Iterable[OutgoingSegment]) -> None:
        """Note that somebody took these."""

        def work(tx: JournalTransaction) -> None:
            for item in _fresh(tx, items):
                _move(tx, item, state="accepted", posts=item.posts + 1, note="")

        await self.commit(work)

    async def move(self, items: Sequence[OutgoingSegment], state: str, note: str = "") -> None:
        """Note how far these have come; `note` says what is not right with them."""

        def work(tx: JournalTransaction) -> None:
            for item in _fresh(tx, items):
                if (item.state, item.note) != (state, note):
                    _move(tx, item, state=state, note=note)

        await self.commit(work)


def carry(tx: JournalTransaction, items: Iterable[OutgoingSegment], carrier: str) -> None:
    """Note in which layer-1 transaction items travel, "" for none."""
    for item in _fresh(tx, items):
        tx.outbox.put(item._replace(carrier=carrier))


def _fresh(tx: JournalTransaction, items: Iterable[OutgoingSegment]) -> Iterable[OutgoingSegment]:
    """Yield items as they are now: another process of this wallet may have moved them."""
    return (now for item in items if (now := tx.outbox.get(item.item)) is not None)


def _move(tx: JournalTransaction, item: OutgoingSegment, **changes: object) -> None:
    tx.outbox.put(item._replace(**changes, moved=int(tx.now * 1e6)))  # type: ignore[arg-type]
