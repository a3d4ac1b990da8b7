"""Finds and reads what gateways have of a wallet's log.

A piece is a segment or a snapshot, found by its owner and tags.  Tags are claims until the piece
has been read: they may decide which pieces are read first, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from agentkit.errors import StateCorrupt, StateError, StoreUnavailable, WrongKey
from agentkit.memory.arweave.ans104 import Item
from agentkit.memory.arweave.base64url import name_of
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.merged_results import MergedItem, MergedResults
from agentkit.memory.arweave.tags import Tags
from agentkit.memory.arweave.unbundling import Carried, find_bundled_items
from agentkit.memory.sealer import Sealer
from agentkit.memory.sealing.segments import OURS

IN_HAND = 16
"""How many pieces are read at once: eight are being downloaded while others are decrypted."""

KINDS: Tags = (("Kind", "segment"), ("Kind", "snapshot"))
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment or snapshot as its tags describe it.

    `kind` is "segment" or "snapshot", and "" if gateways disagree: then only reading it can tell.
    `run` is the hashed stream name, `prev` and `head` are the hashes before its first event and
    after its last one, in hex.  `item` is set if the piece was found in a bundle, which
    the transaction `carrier` contains; otherwise `listed` is the listing by which to fetch it.
    """

    id: str
    kind: str
    run: str
    first: int
    last: int
    prev: str
    head: str
    height: int | None
    listed: MergedItem | None = None
    item: Item | None = None
    carrier: str = ""

    @property
    def label(self) -> str:
        return f"{self.kind or 'piece'} {self.first} of {self.run[:8]}"


def piece_of(
    name: str,
    tags: Tags,
    height: int | None,
    listed: MergedItem | None = None,
    item: Item | None = None,
) -> Piece:
    """Return the piece that an item's tags describe; raises StateCorrupt if they describe none."""
    values = dict(tags)
    numbers = [values.get(tag, "") for tag in ("Seq-First", "Seq-Last")]
    # At most 18 digits, which a 64-bit integer can hold.
    if not all(text.isascii() and text.isdecimal() and len(text) < 19 for text in numbers):
        raise StateCorrupt(f"item {name} has no tags of a segment")
    return Piece(
        id=name,
        kind=values.get("Kind", ""),
        run=values.get("Run", ""),
        first=int(numbers[0]),
        last=int(numbers[1]),
        prev=values.get("Prev", ""),
        head=values.get("Head", ""),
        height=height,
        listed=listed,
        item=item,
    )


def listed_piece(listed: MergedItem) -> Piece:
    """Return the piece that gateways list; raises StateCorrupt if none of them describes one."""
    pieces: list[Piece] = []
    all_tags = list(dict.fromkeys(claim.tags for claim in listed.claims))
    for tags in all_tags:
        try:
            pieces.append(piece_of(listed.id, tags, listed.height, listed))
        except StateCorrupt as error:
            problem = error
    if not pieces:
        raise problem
    is_disputed = len(all_tags) > 1
    return replace(pieces[0], kind="") if is_disputed else pieces[0]


def carried_piece(carried: Carried) -> Piece:
    """Return the piece that came in a bundle; raises StateCorrupt if it is not one."""
    item = carried.item
    piece = piece_of(item.id, item.tags, carried.height, item=item)
    return replace(piece, carrier=carried.carrier)


class Pieces:
    """All pieces of one wallet that gateways have; each is read only once.

    `all` maps ids to pieces.  `warnings` are sentences for people.  `refused` maps the ids of
    pieces that could not be read to the reason.  `gateways` is how many gateways were asked.
    """

    def __init__(self, signer: Sealer, gateways: Gateways) -> None:
        self._signer = signer
        self._gateways = gateways
        self._limit = asyncio.Semaphore(IN_HAND)
        self._read: dict[str, Any] = {}
        self.all: dict[str, Piece] = {}
        self.warnings: list[str] = []
        self.refused: dict[str, StateError | WrongKey] = {}
        self.gateways = 0

    @property
    def owner(self) -> str:
        """The address under which gateways list this wallet's items."""
        return name_of(self._signer.public_key)

    async def find(self) -> None:
        """Find all pieces: those that gateways list, and those in bundles that none unpacked."""
        results = await self._gateways.find(self.owner, [*OURS, *KINDS])
        for listed in results.items:
            self._add(listed.id, partial(listed_piece, listed))

        # A bundle whose items are listed need not be unpacked here.  But a gateway that lacks items
        # of others may also have listed a bundle in part, so then all bundles are unpacked.
        unpacked = {bundle for listed in results.items for bundle in listed.bundles}
        await self._unbundle(set() if results.behind else unpacked)
        self.warnings += _gateway_warnings(results, len(self.all))
        self.gateways = len(results.reports)

    async def read(self, piece: Piece, make: Callable[[Sealer, Item], T]) -> T | None:
        """Return `make` of a piece's verified item; None if the piece could not be read.

        The reason is then in `refused`: anybody can post items with our tags, so one that cannot
        be read must not stop a restore.
        """
        if piece.id in self.refused:
            return None
        if piece.id not in self._read:
            try:
                async with self._limit:
                    self._read[piece.id] = await self._fetch(piece, make)
            except (StateCorrupt, StoreUnavailable, WrongKey) as error:
                self.refused[piece.id] = error
                return None
        return self._read[piece.id]  # type: ignore[no-any-return]  # made by the same `make`

    # -- inside ----------------------------------------------------------------------------------

    def _add(self, name: str, make_piece: Callable[[], Piece]) -> None:
        """Add a piece, or a warning if its tags describe none."""
        try:
            self.all.setdefault(name, make_piece())
        except StateCorrupt as error:
            self.warnings.append(f"refused: {error}")

    async def _fetch(self, piece: Piece, make: Callable[[Sealer, Item], T]) -> T:
        """Return `make` of a piece's item, from the first gateway whose data can be verified."""
        if piece.item is not None:
            return await asyncio.to_thread(make, self._signer, piece.item)
        listed = piece.listed
        assert listed is not None

        def warn(url: str, error: StateCorrupt) -> None:
            self.warnings.append(f"{piece.label} from {url} failed: {error}")

        return await self._gateways.fetch_accepted(
            listed.id,
            lambda data: make(self._signer, listed.with_data(data)),
            on_refused=warn,
        )

    async def _unbundle(self, unpacked: Collection[str]) -> None:
        """Add the pieces in bundles, except in those that gateways have `unpacked`."""
        try:
            bundled = await find_bundled_items(self._gateways, self.owner, skip=unpacked)
        except StoreUnavailable as error:
            self.warnings.append(f"whether bundles hold more is not known: {error}")
            return
        for carried in bundled.items:
            tags = set(carried.item.tags)
            if set(OURS) <= tags and set(KINDS) & tags:
                self._add(carried.item.id, partial(carried_piece, carried))
        self.warnings += [f"refused: {reason}" for reason in bundled.refused]


def _gateway_warnings(results: MergedResults, piece_count: int) -> Iterable[str]:
    """Yield a sentence for each gateway that failed, or that lacks what others list."""
    for report in results.failed:
        yield f"gateway {report.url} failed: {report.problem}"
    for report in results.behind:
        yield f"gateway {report.url} is behind: {report.listed} of {piece_count} segments"
    if len(results.reports) == 1:
        yield "head not corroborated: only one gateway was asked whether this is the newest state"
