"""Confirming: from accepted to mined, stable and read back; or lost, and back into the outbox."""

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
    """Seconds until what no gateway knows counts as lost, and between two seedings of data."""

    lost: float = 3600.0
    seed: float = 600.0


class Confirmer:
    """Asks gateways how deep the items of the outbox lie.

    An item that was in a block and is in none that any gateway knows was undone by a reorg; one
    that was accepted has an hour, as long as it may wait for a block.  A block proves the header
    alone, so data is fetched and compared: when it is mined, and once more when it is stable.
    """

    def __init__(
        self, outbox: Outbox, path: UploadPath, gateways: Gateways, patience: Waits
    ) -> None:
        self._outbox = outbox
        self._path = path
        self._gateways = gateways
        self._patience = patience

    async def look(self) -> None:
        """Move every item that is under way as far as gateways say; raises StateError."""
        together: dict[str, list[OutgoingSegment]] = {}
        for item in await self._outbox.under_way():
            together.setdefault(self._path.under(item), []).append(item)
        statuses = await self._gateways.statuses(list(together))
        for name, items in together.items():
            await self._move(name, items, statuses[name])

    async def _move(self, name: str, items: Sequence[OutgoingSegment], status: ItemStatus) -> None:
        if not status.known:
            await self._outbox.move([i for i in items if await self._is_lost(i, status)], "lost")
        elif status.height is None:
            await self._outbox.move([i for i in items if i.state == "mined"], "accepted")
        else:
            await self._confirm(name, items, status)

    async def _is_lost(self, item: OutgoingSegment, status: ItemStatus) -> bool:
        if not status.certain or item.state == "stable":
            return False
        if item.state == "mined":
            return True
        return not 0 <= await self._since(item) <= self._patience.lost

    async def _confirm(
        self, name: str, items: Sequence[OutgoingSegment], status: ItemStatus
    ) -> None:
        """Move items of one upload on, by how deep it is and whether it reads back whole."""
        stable = status.confirmations >= STABLE_DEPTH
        state = "stable" if stable else "mined"
        if not stable and all(item.state == "mined" and not item.note for item in items):
            return  # it was readable, and will be looked at again once it is stable
        try:
            whole = await self._path.is_whole(name, items)
        except StateError:  # nobody can say now
            await self._outbox.move(items, state, items[0].note)
            return
        if whole:
            await self._outbox.move(items, "read back" if stable else state)
        else:
            await self._seed(name, items, state)

    async def _seed(self, name: str, items: Sequence[OutgoingSegment], state: str) -> None:
        seeded = items[0].note and 0 <= await self._since(items[0]) < self._patience.seed
        await self._outbox.move(items, state, UNREADABLE)
        if not seeded:
            await self._path.seed(name, items)

    async def _since(self, item: OutgoingSegment) -> float:
        """Return the seconds since an item moved, negative when the clock went back."""
        return await self._outbox.commit(lambda tx: tx.now - item.moved / 1e6)
