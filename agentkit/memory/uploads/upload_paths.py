"""The interface of an upload path to Arweave, and the simplest one: items through gateways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.market.plan import Fee
from agentkit.memory.arweave.ans104 import parse_item
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.uploads.outbox import Outbox
from agentkit.money import Asset


class UploadPath(Protocol):
    """How items reach Arweave; every method may raise StateError, most often StoreUnavailable."""

    @property
    def rest(self) -> float:
        """How many seconds items gather in the background before they are sent."""

    async def send(self, items: Sequence[OutgoingSegment]) -> None:
        """Send items, and record each one that was taken.

        To send an item again is safe and never paid twice.  An error is a sentence for people that
        says what is missing; items that were taken before it stay recorded.
        """

    def under(self, item: OutgoingSegment) -> str:
        """Return the id under which gateways know an item: its own, or its transaction's."""

    async def is_whole(self, name: str, items: Sequence[OutgoingSegment]) -> bool:
        """Whether a gateway serves the data of these items, byte for byte."""

    async def seed(self, name: str, items: Sequence[OutgoingSegment]) -> None:
        """Send the data of items again that are mined and cannot be read."""

    async def fee(self) -> Fee:
        """Return what an upload costs now, and the most that uploads can still cost."""

    async def close(self) -> None:
        """Close its connections."""


FREE = Fee(
    name="uploads",
    on="sealed log, free uploads only",
    price=Asset.named("AR").zero(),
    at_most=Asset.named("AR").zero(),
)
"""The fee of uploads that cost nothing, or that are paid with credits bought before."""


class Direct:
    """Items one by one through gateways that take them for nothing; each keeps its own id."""

    rest = 0.0

    def __init__(self, outbox: Outbox, gateways: Gateways) -> None:
        self._outbox = outbox
        self._gateways = gateways

    async def send(self, items: Sequence[OutgoingSegment]) -> None:
        """Post items one by one, and record each as soon as it was taken."""
        for item in items:
            await self._gateways.post_item(item.raw)
            await self._outbox.accepted([item])

    def under(self, item: OutgoingSegment) -> str:
        """Return the item's own id."""
        return item.item

    async def is_whole(self, name: str, items: Sequence[OutgoingSegment]) -> bool:
        """Whether a gateway serves the data of the item; `items` contains just this one."""
        return await self._gateways.holds(name, parse_item(items[0].raw).data)

    async def seed(self, name: str, items: Sequence[OutgoingSegment]) -> None:
        """Post the items again."""
        for item in items:
            await self._gateways.post_item(item.raw)

    async def fee(self) -> Fee:
        """Return no fee."""
        return FREE

    async def close(self) -> None:
        """Do nothing: the gateways are closed by their owner."""
