"""Uploads through layer-1 transactions: a bundle of items each, paid in AR by a separate wallet.

A signed transaction and its fee are on disk before it is posted.  The same bytes are posted again
until the anchor in them is so old that no block may take them any more.  Only then are the items
put into a new transaction: before that the old one may still be mined, and both would be paid for.
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
from agentkit.memory.uploads.outbox import Outbox, set_carrier
from agentkit.money import Asset, Money

AR = Asset.named("AR")
REST = 600.0
"""Seconds for which items gather in the background: every transaction pays for 256 KiB at least."""
ANCHOR_LASTS = 50
"""How many blocks after its anchor a transaction may be mined, by the rules of Arweave."""
MOST_BUNDLE = 8 * 1024 * 1024
FEE_SECONDS = 5.0
"""How long a plan waits for gateways to name the price of an upload."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The most that one upload may cost, and all uploads ever; None is no limit."""

    per_upload: Money | None = None
    total: Money | None = None


class Layer1:
    """The upload path through layer 1: bundles in transactions that an AR wallet pays for."""

    def __init__(
        self,
        outbox: Outbox,
        gateways: Gateways,
        wallet: JwkWallet,
        limits: UploadLimits,
        rest: float = REST,
    ) -> None:
        self.rest = rest
        self._outbox = outbox
        self._gateways = gateways
        self._wallet = wallet
        self._limits = limits

    async def send(self, items: Sequence[OutgoingSegment]) -> None:
        """Post the transactions that were signed before, then put the other items into new ones."""
        for carrier in await self._carriers_of(items):
            await self._post_again_or_drop(carrier)

        # Items of a dropped transaction have lost their carrier, so the outbox is read again.
        waiting = await self._outbox.waiting()
        carrier_ids = {carrier.tx for carrier in await self._carriers_of(waiting)}
        unsigned = [item for item in waiting if item.carrier not in carrier_ids]
        for batch in _batches(unsigned):
            await self._post(await self._sign_bundle(batch))

    def under(self, item: OutgoingSegment) -> str:
        """Return the id of the transaction that contains an item, else the item's own."""
        return item.carrier or item.item

    async def is_whole(self, name: str, items: Sequence[OutgoingSegment]) -> bool:
        """Whether a gateway serves the bundle of these items, byte for byte."""
        carrier = await self._outbox.commit(lambda tx: tx.outbox.get_carrier(name))
        if carrier is not None:
            _, data = await self._rebuild(carrier)
            return await self._gateways.holds(name, data)
        if name == items[0].item:  # it was uploaded by another path, as an item of its own
            return await self._gateways.holds(name, parse_item(items[0].raw).data)
        return await self._foreign_bundle_contains(name, items)

    async def _foreign_bundle_contains(self, name: str, items: Sequence[OutgoingSegment]) -> bool:
        """Whether a transaction that another machine signed contains these items."""
        data = await self._gateways.item_data(name)
        try:
            contained = {raw for _, raw in split_bundle(data)}
        except StateCorrupt:
            return False
        return all(item.raw in contained for item in items)

    async def seed(self, name: str, items: Sequence[OutgoingSegment]) -> None:
        """Send a transaction's header and data to all gateways again."""
        carrier = await self._outbox.commit(lambda tx: tx.outbox.get_carrier(name))
        if carrier is None:  # another machine signed it, and only that one has the header
            return
        weave, data = await self._rebuild(carrier)
        _, chunks = chunked(data)
        await self._gateways.seed(weave, chunks)

    async def fee(self) -> Fee:
        """Return the price of one transaction, and the rest of `memory.total` as the most.

        If no gateway names a price, the limit per upload stands for it: a plan can be made anyway.
        """
        spent = await self._outbox.commit(_spent)
        total = self._limits.total
        per_upload = self._limits.per_upload
        remaining = (
            Money(max(0, total.units - spent.units), AR) if total is not None else per_upload
        )
        try:
            async with asyncio.timeout(FEE_SECONDS):
                price = Money(await self._gateways.price(MAX_CHUNK), AR)
        except (StateError, TimeoutError):
            price = per_upload or remaining or AR.zero()
        return Fee(
            name="uploads",
            on="sealed log, one layer-1 transaction",
            price=price,
            at_most=max(price, remaining or price),
        )

    async def close(self) -> None:
        """Do nothing: the gateways are closed by their owner."""

    # -- transactions that were signed before ----------------------------------------------------

    async def _carriers_of(self, items: Sequence[OutgoingSegment]) -> list[Carrier]:
        """Return the stored transactions that contain these items."""
        names = dict.fromkeys(item.carrier for item in items if item.carrier)
        carriers = await self._outbox.commit(
            lambda tx: [tx.outbox.get_carrier(name) for name in names]
        )
        return [carrier for carrier in carriers if carrier is not None]

    async def _post_again_or_drop(self, carrier: Carrier) -> None:
        """Post a signed transaction again, or give it up once no block may take it any more."""
        status = await self._gateways.status(carrier.tx)
        if status.known and carrier.state == "posted":
            await self._note_posted(carrier)
            return

        if status.known:  # gateways may have its header without its data
            await self._post(carrier)
            return
        lowest_height = min(await self._gateways.heights())
        if lowest_height <= carrier.height + ANCHOR_LASTS:
            await self._post(carrier)
        elif status.certain:
            await self._outbox.commit(lambda tx: _drop(tx, carrier))

    async def _post(self, carrier: Carrier) -> None:
        """Post a stored transaction with its data, and note that it was taken."""
        weave, data = await self._rebuild(carrier)
        _, chunks = chunked(data)
        await self._gateways.post_transaction(weave, chunks)
        await self._note_posted(carrier)

    async def _note_posted(self, carrier: Carrier) -> None:
        items = await self._items_in(carrier)
        posted = carrier._replace(state="posted")
        await self._outbox.commit(lambda tx: tx.outbox.put_carrier(posted))
        await self._outbox.accepted(items)

    async def _items_in(self, carrier: Carrier) -> list[OutgoingSegment]:
        return await self._outbox.commit(lambda tx: _items_of(tx, carrier))

    async def _rebuild(self, carrier: Carrier) -> tuple[WeaveTransaction, bytes]:
        """Return a stored transaction and its data, which is bundled again from its items.

        Raises StateCorrupt if that is not the data that was signed.
        """
        weave, _ = parse_transaction(carrier.header.encode())
        data = _bundle(await self._items_in(carrier))
        data_root, _ = await asyncio.to_thread(chunked, data)
        if data_root != weave.data_root:
            raise StateCorrupt(f"the items of transaction {carrier.tx} are not what was signed")
        return weave, data

    # -- new transactions ------------------------------------------------------------------------

    async def _sign_bundle(self, items: Sequence[OutgoingSegment]) -> Carrier:
        """Sign a transaction with a bundle of these items, and store it before it is posted.

        Raises StoreUnavailable if it is too expensive or cannot be paid.
        """
        data = _bundle(items)
        fee = Money(await self._gateways.price(len(data)), AR)
        await self._check_fee(fee)

        # The highest height is stored, and the lowest is compared with it before the transaction
        # is given up: that is never done while a block could still take it.
        heights = await self._gateways.heights()
        anchor = await self._gateways.anchor()
        tags = bundle_tags(parse_item(items[0].raw).address)
        weave, _ = await asyncio.to_thread(
            make_transaction, self._wallet, data, tags, anchor=anchor, reward=fee.units
        )
        return await self._outbox.commit(
            lambda tx: self._store_signed(tx, weave, items, height=max(heights))
        )

    def _store_signed(
        self,
        tx: JournalTransaction,
        weave: WeaveTransaction,
        items: Sequence[OutgoingSegment],
        *,
        height: int,
    ) -> Carrier:
        """Store a signed transaction; raises StoreUnavailable if it exceeds `memory.total`.

        The total is checked in the transaction that counts the fee, so that two processes cannot
        both spend the rest of it.
        """
        fee = Money(weave.reward, AR)
        spent = _spent(tx)
        total = self._limits.total
        if total is not None and spent + fee > total:
            raise StoreUnavailable(
                f"needs {fee.rough}, and {spent.rough} of memory.total ({total}) are spent",
                hint="raise memory.total",
            )
        carrier = Carrier(
            tx=weave.id,
            header=json.dumps(weave.document()),
            items="\n".join(item.item for item in items),
            fee=fee.units,
            height=height,
            state="signed",
            at=int(tx.now * 1e6),
        )
        tx.outbox.put_carrier(carrier)
        set_carrier(tx, items, weave.id)
        tx.append(e.WALLET, e.UploadSigned(tx=weave.id, fee=fee))
        return carrier

    async def _check_fee(self, fee: Money) -> None:
        """Raise StoreUnavailable for a fee above the limit or above the wallet's balance."""
        per_upload = self._limits.per_upload
        if per_upload is not None and fee > per_upload:
            raise StoreUnavailable(
                f"needs {fee.rough}, above memory.per_upload ({per_upload})",
                hint="raise memory.per_upload, or wait for a lower price",
            )
        balance = Money(await self._gateways.balance(self._wallet.address), AR)
        if balance < fee:
            raise StoreUnavailable(
                f"needs {fee.rough}, wallet has {balance.rough if balance else 0}",
                hint=f"send AR to {self._wallet.address}",
            )


def _spent(tx: JournalTransaction) -> Money:
    """Return the fees of all transactions that were signed and not given up."""
    total = tx.get(r.Total, f"uploads|{AR.id}")
    return total.amount if total else AR.zero()


def _drop(tx: JournalTransaction, carrier: Carrier) -> None:
    """Give up a transaction that no block may take any more; its fee was never paid."""
    tx.outbox.put_carrier(carrier._replace(state="dropped"))
    set_carrier(tx, _items_of(tx, carrier), "")
    tx.append(e.WALLET, e.UploadDropped(tx=carrier.tx, fee=Money(carrier.fee, AR)))


def _items_of(tx: JournalTransaction, carrier: Carrier) -> list[OutgoingSegment]:
    """Return the items in a transaction, in the order in which they were bundled."""
    items = (tx.outbox.get(name) for name in carrier.items.split())
    return [item for item in items if item is not None]


def _bundle(items: Sequence[OutgoingSegment]) -> bytes:
    return make_bundle([parse_item(item.raw) for item in items])


def _batches(items: Sequence[OutgoingSegment]) -> Iterator[list[OutgoingSegment]]:
    """Yield items in batches of at most MOST_BUNDLE bytes, a single larger item alone."""
    batch: list[OutgoingSegment] = []
    batch_size = 0
    for item in items:
        if batch and batch_size + len(item.raw) > MOST_BUNDLE:
            yield batch
            batch = []
            batch_size = 0
        batch.append(item)
        batch_size += len(item.raw)
    if batch:
        yield batch
