"""Ways to Arweave: what each of them can do for the items of the outbox."""

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
    """One way to Arweave; every method may raise StateError, StoreUnavailable above all.

    `rest` is the seconds for which items gather before they are sent unasked.
    """

    @property
    def rest(self) -> float: ...

    async def send(self, items: Sequence[OutgoingSegment]) -> None:
        """Hand items over and note what was taken; the same items again are no second upload.

        Its error says in words for people what is missing; what was taken before stays taken.
        """

    def under(self, item: OutgoingSegment) -> str:
        """Return the id under which an item is looked for."""

    async def is_whole(self, name: str, items: Sequence[OutgoingSegment]) -> bool:
        """Whether the data of these items can be read back, byte for byte."""

    async def seed(self, name: str, items: Sequence[OutgoingSegment]) -> None:
        """Hand over the data again of what is mined and cannot be read."""

    async def fee(self) -> Fee:
        """Return what an upload costs now, and what uploads can still come to."""

    async def close(self) -> None: ...


FREE = Fee(
    name="uploads",
    on="sealed log, free uploads only",
    price=Asset.named("AR").zero(),
    at_most=Asset.named("AR").zero(),
)
"""What is posted to gateways that take it for nothing, or against credits bought before."""


class Direct:
    """Items posted one by one, and looked for by their own ids: to gateways that take them."""

    rest = 0.0

    def __init__(self, outbox: Outbox, gateways: Gateways) -> None:
        self._outbox, self._gateways = outbox, gateways

    async def send(self, items: Sequence[OutgoingSegment]) -> None:
        for item in items:
            await self._gateways.post_item(item.raw)
            await self._outbox.accepted([item])

    def under(self, item: OutgoingSegment) -> str:
        return item.item

    async def is_whole(self, name: str, items: Sequence[OutgoingSegment]) -> bool:
        return await self._gateways.holds(name, parse_item(items[0].raw).data)

    async def seed(self, name: str, items: Sequence[OutgoingSegment]) -> None:
        for item in items:
            await self._gateways.post_item(item.raw)

    async def fee(self) -> Fee:
        return FREE

    async def close(self) -> None:
        return
