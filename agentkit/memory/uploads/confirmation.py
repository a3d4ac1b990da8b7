"""Follows uploaded items: accepted -> mined -> stable -> read back, or lost and sent again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentkit.errors import StateError
from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.memory.arweave.gateways import Gateways, ItemStatus
from agentkit.memory.uploads.outbox import Outbox
from agentkit.memory.uploads.upload_paths import UploadPath

STABLE_DEPTH = 18
"""Confirmations after which a block is never undone (Arweave's checkpoint depth)."""
UNREADABLE = "mined but not readable yet"


@dataclass(frozen=True, slots=True)
class Waits:
    """How long to wait, in seconds.

    `lost`: until an item that no gateway knows counts as lost.  `seed`: before the data of a mined
    item is sent to gateways once more.
    """

    lost: float = 3600.0
    seed: float = 600.0


class Confirmer:
    """Asks gateways in which blocks the items of the outbox are, and records it.

    If an item was in a block and is in none any more, a reorg has undone it.  An item that was
    accepted may wait an hour for a block.  A block contains only a transaction's header, so the
    data is fetched and compared: once when it is mined, and again when it is stable.
    """

    def __init__(
        self, outbox: Outbox, path: UploadPath, gateways: Gateways, patience: Waits
    ) -> None:
        self._outbox = outbox
        self._path = path
        self._gateways = gateways
        self._patience = patience

    async def look(self) -> None:
        """Ask gateways about every uploaded item, and record its state; raises StateError."""
        items_by_name: dict[str, list[OutgoingSegment]] = {}
        for item in await self._outbox.under_way():
            items_by_name.setdefault(self._path.under(item), []).append(item)
        statuses = await self._gateways.statuses(list(items_by_name))
        for name, items in items_by_name.items():
            await self._record(name, items, statuses[name])

    async def _record(
        self, name: str, items: Sequence[OutgoingSegment], status: ItemStatus
    ) -> None:
        """Record what gateways say of one upload and of the items in it."""
        if not status.known:
            lost = [item for item in items if await self._is_lost(item, status)]
            await self._outbox.move(lost, "lost")
        elif status.height is None:
            undone = [item for item in items if item.state == "mined"]
            await self._outbox.move(undone, "accepted")
        else:
            await self._confirm(name, items, status)

    async def _is_lost(self, item: OutgoingSegment, status: ItemStatus) -> bool:
        """Whether an item that no gateway knows has to be sent again."""
        if not status.certain or item.state == "stable":
            return False
        if item.state == "mined":
            return True
        seconds = await self._seconds_since_moved(item)
        return not 0 <= seconds <= self._patience.lost

    async def _confirm(
        self, name: str, items: Sequence[OutgoingSegment], status: ItemStatus
    ) -> None:
        """Record how deep an upload in a block is, and whether its data can be read back."""
        is_stable = status.confirmations >= STABLE_DEPTH
        state = "stable" if is_stable else "mined"
        if not is_stable and all(item.state == "mined" and not item.note for item in items):
            return  # its data was read when it was mined, and is read again once it is stable
        try:
            is_readable = await self._path.is_whole(name, items)
        except StateError:  # unknown now; the next look asks again
            await self._outbox.move(items, state, items[0].note)
            return
        if is_readable:
            await self._outbox.move(items, "read back" if is_stable else state)
        else:
            await self._seed(name, items, state)

    async def _seed(self, name: str, items: Sequence[OutgoingSegment], state: str) -> None:
        """Send the data of a mined upload again, unless that was done a short while ago."""
        item = items[0]
        was_seeded = item.note and (
            0 <= await self._seconds_since_moved(item) < self._patience.seed
        )
        await self._outbox.move(items, state, UNREADABLE)
        if not was_seeded:
            await self._path.seed(name, items)

    async def _seconds_since_moved(self, item: OutgoingSegment) -> float:
        """Return the seconds since an item's state changed; negative if the clock was set back."""
        return await self._outbox.commit(lambda tx: tx.now - item.moved / 1e6)
