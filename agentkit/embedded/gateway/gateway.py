"""The weave of this machine: what is posted, checked, indexed and mined.

It does what the real network does, and refuses some things that the real one lets pass: a data
item is verified whole, data that does not fit its transaction is refused and not dropped, and
half-uploaded data is not served.  Nothing runs between calls; blocks are mined when a call finds
them due.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, StringConstraints, ValidationError

from agentkit.embedded.gateway.blocks import BlockHead, Blocks
from agentkit.embedded.gateway.chunks import Chunks
from agentkit.embedded.gateway.database import open_database, transaction
from agentkit.embedded.gateway.entries import EntryIndex, IndexEntry
from agentkit.embedded.gateway.faults import Bench, Faults
from agentkit.embedded.gateway.files import ContentFiles
from agentkit.embedded.gateway.queries import Queries
from agentkit.embedded.gateway.rejected import Rejected
from agentkit.embedded.gateway.wallets import Wallets, fee
from agentkit.errors import MissingExtra, StateCorrupt
from agentkit.memory.arweave.ans104 import (
    BUNDLE_TAGS,
    Item,
    parse_entry,
    parse_item,
    split_bundle,
    verify,
)
from agentkit.memory.arweave.base64url import b64url, unb64url
from agentkit.memory.arweave.layer1 import WeaveTransaction, parse_transaction, verify_transaction
from agentkit.memory.arweave.merkle import chunked, proven_range

MAX_DATA_BYTES = 256 * 1024 * 1024
"""Bytes of data of one transaction; the real network knows no such limit."""

Clock: TypeAlias = Callable[[], float]
"""Returns unix seconds."""


@dataclass(frozen=True, slots=True)
class Mined:
    """Where an entry stands; no height while it is pending."""

    height: int | None
    block: str
    confirmations: int


class Gateway:
    """An Arweave gateway in one folder; every method blocks, and one thread may be in it."""

    def __init__(
        self, database: sqlite3.Connection, files: ContentFiles, seconds: float, clock: Clock
    ) -> None:
        self._database, self._files = database, files
        self._seconds, self._clock = seconds, clock
        self._entries = EntryIndex(database)
        self._chunks = Chunks(database, files)
        self._blocks = Blocks(database, clock())
        self._wallets = Wallets(database)
        self.bench = Bench()
        self._queries = Queries(self._entries, self._blocks, self.bench)

    @classmethod
    def open(cls, folder: Path, *, block_seconds: float = 0.0, clock: Clock = time.time) -> Gateway:
        """Open or make the weave in `folder`; raises MissingExtra.

        With `block_seconds` a block is mined every so often; with 0 every post is mined at once.
        """
        if find_spec("graphql") is None:
            raise MissingExtra("gateway", "graphql-core")
        files = ContentFiles(folder / "content")
        return cls(open_database(folder / "weave.db"), files, block_seconds, clock)

    def close(self) -> None:
        self._database.close()

    # -- posting ---------------------------------------------------------------------------------

    def post_item(self, raw: bytes) -> tuple[Item, bool]:
        """Take a signed data item, and say whether it is new; raises Rejected."""
        try:
            item = parse_item(raw)
            verify(item)
        except StateCorrupt as error:
            raise Rejected(f"Invalid Data Item: {error}") from error
        self.mine_due()
        known = self._entries.get(item.id)
        if known and known.digest:
            return item, False
        digest = self._files.put(item.data)
        with transaction(self._database):
            if known:
                self._entries.relocate(known, digest)
                return item, False
            self._entries.add(_item_entry(item, digest))
            self._mine_at_once()
        return item, True

    def post_transaction(self, document: bytes) -> bool:
        """Take a layer-1 transaction, and say whether it is new; raises Rejected."""
        try:
            tx, data = parse_transaction(document)
            verify_transaction(tx, data or None)
        except StateCorrupt as error:
            raise Rejected(f"Transaction verification failed: {error}") from error
        self.mine_due()
        if self._entries.get(tx.id):
            return False
        self._admit(tx)
        with transaction(self._database):
            self._pay(tx)
            self._entries.add(_transaction_entry(tx))
            self._database.execute("delete from dropped where id = ?", (tx.id,))
            for chunk in chunked(data)[1]:
                self._chunks.add(b64url(tx.data_root), tx.data_size, chunk.start, chunk.data)
            self._mine_at_once()
        return True

    def post_chunk(self, document: bytes) -> None:
        """Take a chunk of a transaction's data with its proof; raises Rejected."""
        try:
            wire = _Chunk.model_validate_json(document)
            data, size = unb64url(wire.chunk), int(wire.data_size)
            path, root = unb64url(wire.data_path), unb64url(wire.data_root)
        except (ValidationError, StateCorrupt) as error:
            raise Rejected('{"error":"invalid_json"}') from error
        try:
            start, end = proven_range(root, size, int(wire.offset), path, data)
        except StateCorrupt as error:
            raise Rejected('{"error":"invalid_proof"}') from error
        if len(data) < len(path) and end < size:
            raise Rejected('{"error":"chunk_proof_ratio_not_attractive"}')
        self.mine_due()
        owners = self._entries.of_root(wire.data_root, size)
        if not owners:
            raise Rejected('{"error":"data_root_not_found"}')
        with transaction(self._database):
            new = self._chunks.add(wire.data_root, size, start, data)
            for entry in owners if new else ():
                if entry.height is not None:
                    self._unbundle(entry, entry.height)

    def _admit(self, tx: WeaveTransaction) -> None:
        """Raise Rejected for what a node would not take, in a node's words."""
        if b64url(tx.anchor) not in self._blocks.anchors():
            raise Rejected("Invalid anchor (last_tx).")
        if tx.data_size > MAX_DATA_BYTES:
            raise Rejected(f"Transaction verification failed: more than {MAX_DATA_BYTES} bytes")
        if len(tx.target) not in ((32,) if tx.quantity else (0, 32)):
            raise Rejected("Transaction verification failed: its target is not an address")
        if tx.reward < self.price(tx.data_size, b64url(tx.target)):
            raise Rejected("Transaction verification failed: the reward is too low")

    def _pay(self, tx: WeaveTransaction) -> None:
        self._wallets.add(tx.address, -tx.reward - tx.quantity)
        if tx.target:
            self._wallets.add(b64url(tx.target), tx.quantity)

    # -- reading ---------------------------------------------------------------------------------

    def data(self, name: str) -> bytes | None:
        """Return the data under an id, None while it is unknown or not complete.

        Raises StateCorrupt when what lies on disk is not what was stored.
        """
        entry = self._known(name)
        source = self.bench.source(name) if entry else None
        entry = entry if source == name else self._entries.get(source or "")
        data = self._data_of(entry) if entry else None
        return None if data is None else self.bench.spoiled(name, data)

    def transaction(self, name: str) -> dict[str, Any] | None:
        """Return the JSON of a mined layer-1 transaction."""
        self.mine_due()
        entry = self._known(name)
        if entry is None or entry.height is None or not entry.header:
            return None
        document: dict[str, Any] = json.loads(entry.header)
        return document

    def status(self, name: str) -> Mined | None:
        """Say where an id stands, None when it is unknown."""
        self.mine_due()
        entry = self._known(name)
        if entry is None:
            return None
        if entry.height is None:
            return Mined(None, "", 0)
        depth = self._blocks.head.height - entry.height + 1
        return Mined(entry.height, self._blocks.hash_of(entry.height), depth)

    def query(self, text: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a GraphQL query; raises Rejected when it cannot be read."""
        self.mine_due()
        return self._queries.answer(text, variables)

    def height(self) -> int:
        """Return the height of the newest block."""
        self.mine_due()
        return self._blocks.head.height

    def anchor(self) -> str:
        """Return the hash of a block that a transaction signed now should name."""
        self.mine_due()
        return self._blocks.anchor()

    def block(self) -> str:
        """Return the hash of the newest block."""
        return self._blocks.hash_of(self.height())

    def dropped(self, name: str) -> str:
        """Return why a transaction was forgotten, "" when none of this id was."""
        row = self._database.execute("select reason from dropped where id = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def price(self, size: int, target: str = "") -> int:
        """Return the least reward for `size` bytes, in winston; a new `target` costs extra."""
        times = self.bench.faults.price_times
        return times * fee(size, new_wallet=bool(target) and not self._wallets.known(target))

    def balance(self, address: str) -> int:
        """Return the winston that an address holds."""
        return self._wallets.balance(address)

    # -- the hand of the test bench --------------------------------------------------------------

    def mint(self, address: str, winston: int) -> int:
        """Give an address test money and return its balance; raises Rejected above what fits."""
        with transaction(self._database):
            return self._wallets.add(address, winston)

    def set_faults(self, faults: Faults) -> None:
        """Have these go wrong from now on, and nothing else."""
        self.mine_due()
        self._blocks.advance(BlockHead(self._blocks.head.height, self._clock()))
        self.bench.set(faults)

    def reorg(self, depth: int, *, keep: bool = False) -> int:
        """Replace the newest `depth` blocks by empty ones, one more, and return the height.

        What was in them is forgotten, or waits again with `keep`, as far as its anchor lasts.
        """
        self.mine_due()
        top = self._blocks.head.height
        above = max(0, top - depth)
        with transaction(self._database):
            self._blocks.branch(above)
            for entry in self._entries.above(above):
                if keep and not entry.bundled_in:
                    self._entries.put_back(entry)
                elif self._entries.get(entry.id):  # what it bundles went with it
                    self._drop(entry, "orphaned")
            self._blocks.advance(BlockHead(top + 1, self._clock()))
        self.bench.reached["reorg"] += 1
        return top + 1

    def lose(self, name: str) -> None:
        """Lose the data of an entry and keep its header, as if nobody had seeded it."""
        entry = self._entries.get(name)
        if entry is None:
            return
        with transaction(self._database):
            if entry.digest:
                self._entries.relocate(entry, "")
            else:
                self._chunks.forget(entry.root, entry.size)
        self.bench.reached["lose"] += 1

    def mine(self) -> int:
        """Mine a block now, whatever the clock says, and return its height."""
        self.mine_due()
        with transaction(self._database):
            return self._mine(self._next())

    def mine_due(self) -> None:
        """Mine the blocks whose time has come."""
        head = self._blocks.head
        due = head.due(self._clock(), self._rhythm)
        if not due:
            return
        with transaction(self._database):
            # Posting mines what is due first, so whatever is pending waits for the next block.
            self._mine(head.after(1, self._rhythm))
            self._blocks.advance(head.after(due, self._rhythm))

    @property
    def _rhythm(self) -> float:
        asked = self.bench.faults.block_seconds
        return self._seconds if asked is None else asked

    def _mine_at_once(self) -> None:
        if not self._rhythm:
            self._mine(self._next())

    def _next(self) -> BlockHead:
        return BlockHead(self._blocks.head.height + 1, self._clock())

    def _mine(self, block: BlockHead) -> int:
        """Take what waits into a block, but for what is held back, dropped or too old."""
        anchors = self._blocks.anchors()
        for entry in self._entries.pending():
            if self.bench.drops(entry.id):
                self._drop(entry, "overspend")
                continue
            if entry.header and entry.anchor not in anchors:
                self._drop(entry, "tx_bad_anchor")
                continue
            if self.bench.holds(entry.id):
                continue
            self._blocks.keep(block)
            self._entries.confirm(entry, block.height)
            self._unbundle(entry, block.height)
        self._blocks.advance(block)
        return block.height

    def _drop(self, entry: IndexEntry, reason: str) -> None:
        """Forget an entry; what a transaction cost goes back to its wallet."""
        self._entries.forget(entry)
        if not entry.header:
            return
        self._wallets.add(entry.address, entry.reward + entry.quantity)
        if entry.quantity:
            self._wallets.add(entry.target, -entry.quantity)
        self._database.execute("insert or replace into dropped values (?, ?)", (entry.id, reason))

    def _unbundle(self, bundle: IndexEntry, height: int) -> None:
        """Index what a transaction bundles, once its data is there; forged items are left out."""
        if not bundle.root or not set(BUNDLE_TAGS) <= set(bundle.tags):
            return
        if not self.bench.faults.unbundle:
            self.bench.reached["unbundle"] += 1
            return
        try:
            for name, raw in split_bundle(self._data_of(bundle) or b""):
                self._add_bundled(name, raw, bundle, height)
        except StateCorrupt:
            return  # not a bundle, whatever its tags say: it stays a plain transaction

    def _add_bundled(self, name: str, raw: bytes, bundle: IndexEntry, height: int) -> None:
        try:
            item = parse_entry(name, raw)
        except StateCorrupt:
            return
        digest = self._files.put(item.data)
        self._entries.add(_item_entry(item, digest, height, bundle.id))

    def _known(self, name: str) -> IndexEntry | None:
        """Return an entry that is not to be hidden."""
        entry = self._entries.get(name)
        if entry is None or self.bench.hides(name):
            return None
        newest = self.bench.faults.hide_newest
        return None if newest and entry.number > self._entries.newest(newest) else entry

    def _data_of(self, entry: IndexEntry) -> bytes | None:
        if entry.digest:
            return self._files.get(entry.digest)
        if not entry.header:
            return None
        return self._chunks.joined(entry.root, entry.size)


_Number = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}$")]


class _Chunk(BaseModel):
    data_root: str
    data_size: _Number
    data_path: str
    offset: _Number
    chunk: str


def _item_entry(item: Item, digest: str, height: int | None = None, bundle: str = "") -> IndexEntry:
    """Return a data item as the gateway indexes it."""
    return IndexEntry(
        id=item.id,
        owner=b64url(item.owner),
        signature=b64url(item.signature),
        anchor=b64url(item.message.anchor),
        target=b64url(item.message.target),
        size=len(item.data),
        digest=digest,
        bundled_in=bundle,
        height=height,
        tags=item.tags,
    )


def _transaction_entry(tx: WeaveTransaction) -> IndexEntry:
    """Return a layer-1 transaction as the gateway indexes it."""
    return IndexEntry(
        id=tx.id,
        owner=b64url(tx.owner),
        signature=b64url(tx.signature),
        anchor=b64url(tx.anchor),
        target=b64url(tx.target),
        size=tx.data_size,
        reward=tx.reward,
        quantity=tx.quantity,
        root=b64url(tx.data_root),
        header=json.dumps(tx.document()),
        tags=tx.tags,
    )
