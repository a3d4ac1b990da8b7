"""Layer 1: many items in one transaction, paid in AR by a wallet of its own.

The signed transaction and its fee are on disk before it leaves, and the same bytes are posted
until its anchor is too old for any block to take it.  Only then are its items wrapped anew, so
that no bundle is paid for twice while the first may still be mined.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentkit.errors import StateCorrupt, StateError, StoreUnavailable
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.outbox_tables import Carrier, OutgoingSegment
from agentkit.journal.transaction import JournalTransaction
from agentkit.market.plan import Fee
from agentkit.memory.arweave.ans104 import make_bundle, parse_item, split_bundle
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.jwk import JwkWallet
from agentkit.memory.arweave.layer1 import WeaveTransaction, make_transaction, parse_transaction
from agentkit.memory.arweave.merkle import MAX_CHUNK, chunked
from agentkit.memory.arweave.unbundling import bundle_tags
from agentkit.memory.uploads.outbox import Outbox, carry
from agentkit.money import Asset, Money

AR = Asset.named("AR")
REST = 600.0
"""Seconds between transactions that nobody asked for: each pays for 256 KiB, however small."""
ANCHOR_LASTS = 50
"""Blocks after which no block takes a transaction any more; its anchor was in some before."""
MOST_BUNDLE = 8 * 1024 * 1024
FEE_SECONDS = 5.0
"""How long a plan waits to hear what an upload costs."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What may be paid for one upload, and for all of them ever; None is no limit."""

    per_upload: Money | None = None
    total: Money | None = None


class Layer1:
    """Bundles of items in transactions of a JWK wallet."""

    def __init__(
        self,
        outbox: Outbox,
        gateways: Gateways,
        wallet: JwkWallet,
        limits: UploadLimits,
        rest: float = REST,
    ) -> None:
        self.rest = rest
        self._outbox, self._gateways = outbox, gateways
        self._wallet, self._limits = wallet, limits

    async def send(self, items: Sequence[OutgoingSegment]) -> None:
        for carrier in await self._carriers(items):
            await self._settle(carrier)
        waiting = await self._outbox.waiting()
        ours = {carrier.tx for carrier in await self._carriers(waiting)}
        rest = [item for item in waiting if item.carrier not in ours]
        for part in _parts(rest):
            await self._post(await self._wrap(part))

    def under(self, item: OutgoingSegment) -> str:
        return item.carrier or item.item

    async def is_whole(self, name: str, items: Sequence[OutgoingSegment]) -> bool:
        carrier = await self._outbox.commit(lambda tx: tx.outbox.get_carrier(name))
        if carrier is not None:
            return await self._gateways.holds(name, (await self._bundle(carrier))[1])
        if name == items[0].item:  # it came here by another path
            return await self._gateways.holds(name, parse_item(items[0].raw).data)
        return await self._carries(name, items)

    async def _carries(self, name: str, items: Sequence[OutgoingSegment]) -> bool:
        """Whether a transaction that another machine signed has these items in it."""
        data = await self._gateways.item_data(name)
        try:
            inside = {raw for _, raw in split_bundle(data)}
        except StateCorrupt:
            return False
        return all(item.raw in inside for item in items)

    async def seed(self, name: str, items: Sequence[OutgoingSegment]) -> None:
        carrier = await self._outbox.commit(lambda tx: tx.outbox.get_carrier(name))
        if carrier is None:  # another machine signed it, and has its header
            return
        weave, data = await self._bundle(carrier)
        await self._gateways.seed(weave, chunked(data)[1])

    async def fee(self) -> Fee:
        """Return the price of a transaction, and what is left of `memory.total`.

        A gateway that does not say is no reason not to plan: then it is the most that is allowed.
        """
        spent = await self._outbox.commit(_spent)
        total, cap = self._limits.total, self._limits.per_upload
        left = Money(max(0, total.units - spent.units), AR) if total is not None else cap
        try:
            async with asyncio.timeout(FEE_SECONDS):
                price = Money(await self._gateways.price(MAX_CHUNK), AR)
        except (StateError, TimeoutError):
            price = cap or left or AR.zero()
        on = "sealed log, one layer-1 transaction"
        return Fee(name="uploads", on=on, price=price, at_most=max(price, left or price))

    async def close(self) -> None:
        return

    # -- a transaction that was signed before ----------------------------------------------------

    async def _carriers(self, items: Sequence[OutgoingSegment]) -> list[Carrier]:
        names = dict.fromkeys(item.carrier for item in items if item.carrier)
        found = await self._outbox.commit(
            lambda tx: [tx.outbox.get_carrier(name) for name in names]
        )
        return [carrier for carrier in found if carrier is not None]

    async def _settle(self, carrier: Carrier) -> None:
        """Post a signed transaction again, or give it up once nothing can come of it."""
        status = await self._gateways.status(carrier.tx)
        if status.known and carrier.state == "posted":
            await self._taken(carrier)
        elif status.known or min(await self._gateways.heights()) <= carrier.height + ANCHOR_LASTS:
            await self._post(carrier)  # its header may be there without its data
        elif status.certain:
            await self._outbox.commit(lambda tx: _drop(tx, carrier))

    async def _post(self, carrier: Carrier) -> None:
        weave, data = await self._bundle(carrier)
        await self._gateways.post_transaction(weave, chunked(data)[1])
        await self._taken(carrier)

    async def _taken(self, carrier: Carrier) -> None:
        items = await self._items(carrier)
        await self._outbox.commit(
            lambda tx: tx.outbox.put_carrier(carrier._replace(state="posted"))
        )
        await self._outbox.accepted(items)

    async def _items(self, carrier: Carrier) -> list[OutgoingSegment]:
        names = carrier.items.split()
        found = await self._outbox.commit(lambda tx: [tx.outbox.get(name) for name in names])
        return [item for item in found if item is not None]

    async def _bundle(self, carrier: Carrier) -> tuple[WeaveTransaction, bytes]:
        """Return a stored transaction and its data, made again from the items in it."""
        weave, _ = parse_transaction(carrier.header.encode())
        data = _bundled(await self._items(carrier))
        if (await asyncio.to_thread(chunked, data))[0] != weave.data_root:
            raise StateCorrupt(f"the items of transaction {carrier.tx} are not what was signed")
        return weave, data

    # -- a new one -------------------------------------------------------------------------------

    async def _wrap(self, items: Sequence[OutgoingSegment]) -> Carrier:
        """Sign a transaction around items and write it down with its fee."""
        data = _bundled(items)
        fee = Money(await self._gateways.price(len(data)), AR)
        await self._check(fee)
        heights, anchor = await self._gateways.heights(), await self._gateways.anchor()
        tags = bundle_tags(parse_item(items[0].raw).address)
        weave, _ = await asyncio.to_thread(
            make_transaction, self._wallet, data, tags, anchor=anchor, reward=fee.units
        )
        names = "\n".join(item.item for item in items)
        top = max(heights)
        return await self._outbox.commit(lambda tx: self._keep(tx, weave, names, items, top))

    def _keep(
        self,
        tx: JournalTransaction,
        weave: WeaveTransaction,
        names: str,
        items: Sequence[OutgoingSegment],
        height: int,
    ) -> Carrier:
        """Store a signed transaction with its items before it leaves, within `memory.total`."""
        fee = Money(weave.reward, AR)
        spent = _spent(tx)
        total = self._limits.total
        if total is not None and spent + fee > total:
            raise StoreUnavailable(
                f"needs {fee.rough}, and {spent.rough} of memory.total ({total}) are spent",
                hint="raise memory.total",
            )
        header = json.dumps(weave.document())
        carrier = Carrier(weave.id, header, names, fee.units, height, "signed", int(tx.now * 1e6))
        tx.outbox.put_carrier(carrier)
        carry(tx, items, weave.id)
        tx.append(e.WALLET, e.UploadSigned(tx=weave.id, fee=fee))
        return carrier

    async def _check(self, fee: Money) -> None:
        """Refuse what is too dear or cannot be paid; raises StoreUnavailable."""
        cap = self._limits.per_upload
        if cap is not None and fee > cap:
            raise StoreUnavailable(
                f"needs {fee.rough}, above memory.per_upload ({cap})",
                hint="raise memory.per_upload, or wait for a lower price",
            )
        held = Money(await self._gateways.balance(self._wallet.address), AR)
        if held < fee:
            raise StoreUnavailable(
                f"needs {fee.rough}, wallet has {held.rough if held else 0}",
                hint=f"send AR to {self._wallet.address}",
            )


def _spent(tx: JournalTransaction) -> Money:
    row = tx.get(r.Total, f"uploads|{AR.id}")
    return row.amount if row else AR.zero()


def _drop(tx: JournalTransaction, carrier: Carrier) -> None:
    """Give a transaction up: no block can take it any more, so its fee was never paid."""
    tx.outbox.put_carrier(carrier._replace(state="dropped"))
    names = carrier.items.split()
    items = [item for name in names if (item := tx.outbox.get(name)) is not None]
    carry(tx, items, "")
    tx.append(e.WALLET, e.UploadDropped(tx=carrier.tx, fee=Money(carrier.fee, AR)))


def _bundled(items: Sequence[OutgoingSegment]) -> bytes:
    return make_bundle([parse_item(item.raw) for item in items])


def _parts(items: Sequence[OutgoingSegment]) -> Iterator[list[OutgoingSegment]]:
    """Yield items in bundles of bounded size."""
    part: list[OutgoingSegment] = []
    size = 0
    for item in items:
        if part and size + len(item.raw) > MOST_BUNDLE:
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item.raw)
    if part:
        yield part
