"""The outbox: signed segments on their way to Arweave; each state is on disk before the next."""

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
    """The signed segments of one wallet's journal, by state."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def commit(self, work: Callable[[JournalTransaction], T]) -> T:
        """Call `work` inside one transaction of the journal, and return its result."""
        return await self._journal.commit(work)

    async def waiting(self) -> list[OutgoingSegment]:
        """Return the segments that have to be sent, oldest first.

        Of segments that were sealed together the wallet's comes first.  A restore that finds only
        some of them must not know a purchase without the payment for it.
        """
        waiting = await self.commit(lambda tx: tx.outbox.in_states(*WAITING))
        return sorted(waiting, key=lambda segment: (segment.at, segment.stream != e.WALLET))

    async def under_way(self) -> list[OutgoingSegment]:
        """Return the segments that a gateway took and that were not yet read back for good."""
        return await self.commit(lambda tx: tx.outbox.in_states(*UNDER_WAY))

    async def accepted(self, items: Iterable[OutgoingSegment]) -> None:
        """Record that a gateway or an upload service took these segments."""

        def work(tx: JournalTransaction) -> None:
            for item in _current(tx, items):
                _move(tx, item, state="accepted", posts=item.posts + 1, note="")

        await self.commit(work)

    async def move(self, items: Sequence[OutgoingSegment], state: str, note: str = "") -> None:
        """Record the state of segments; `note` names a problem with them."""

        def work(tx: JournalTransaction) -> None:
            for item in _current(tx, items):
                if (item.state, item.note) != (state, note):
                    _move(tx, item, state=state, note=note)

        await self.commit(work)


def set_carrier(tx: JournalTransaction, items: Iterable[OutgoingSegment], carrier: str) -> None:
    """Record which layer-1 transaction contains these items; "" stands for none."""
    for item in _current(tx, items):
        tx.outbox.put(item._replace(carrier=carrier))


def _current(tx: JournalTransaction, items: Iterable[OutgoingSegment]) -> Iterable[OutgoingSegment]:
    """Yield items as they are stored now: another process of this wallet may have moved them."""
    for item in items:
        current = tx.outbox.get(item.item)
        if current is not None:
            yield current


def _move(tx: JournalTransaction, item: OutgoingSegment, **changes: object) -> None:
    """Store an item with these changes and the time of the change."""
    tx.outbox.put(item._replace(**changes, moved=int(tx.now * 1e6)))  # type: ignore[arg-type]
