"""What gateways hold of a wallet's log: pieces found by owner and tags, and read one by one.

A piece is a segment or a snapshot.  What its tags say is a claim until it has been read: it may
decide which pieces are read first, and nothing else.
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
from agentkit.memory.arweave.unbundling import Carried, unbundled
from agentkit.memory.sealing.sealer import Sealer
from agentkit.memory.sealing.segments import OURS

IN_HAND = 16
"""Pieces that are read side by side: a client has eight of them on the wire, others are opened."""

KINDS: Tags = (("Kind", "segment"), ("Kind", "snapshot"))
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece:
    """An item of ours as tags announce it.

    `item` is there already if it came in a bundle, from the transaction `carrier`.

    `kind` is empty where gateways tell different tales: such a piece has to be read to be known.
    """

    id: str
    kind: str
    run: str
    first: int
    last: int
    prev: str
    head: str
    height: int | None
    found: MergedItem | None = None
    item: Item | None = None
    carrier: str = ""

    @property
    def label(self) -> str:
        return f"{self.kind or 'piece'} {self.first} of {self.run[:8]}"


def piece_of(
    name: str,
    tags: Tags,
    height: int | None,
    found: MergedItem | None = None,
    item: Item | None = None,
) -> Piece:
    """Return the piece that tags announce; raises StateCorrupt for tags that announce none."""
    told = dict(tags)
    numbers = [told.get(tag, "") for tag in ("Seq-First", "Seq-Last")]
    if not all(text.isascii() and text.isdecimal() and len(text) < 19 for text in numbers):
        raise StateCorrupt(f"item {name} has no tags of a segment")
    first, last = map(int, numbers)
    parts = (told.get(tag, "") for tag in ("Kind", "Run", "Prev", "Head"))
    kind, run, prev, head = parts
    return Piece(name, kind, run, first, last, prev, head, height, found, item)


def listed_piece(found: MergedItem) -> Piece:
    """Return the piece that gateways list; raises StateCorrupt when none of them lists one."""
    tales: list[Piece] = []
    for tags in dict.fromkeys(claim.tags for claim in found.claims):
        try:
            tales.append(piece_of(found.id, tags, found.height, found))
        except StateCorrupt as error:
            problem = error
    if not tales:
        raise problem
    disputed = len({claim.tags for claim in found.claims}) > 1
    return replace(tales[0], kind="") if disputed else tales[0]


def carried_piece(one: Carried) -> Piece:
    """Return the piece that came in a bundle; raises StateCorrupt when it is none."""
    item = one.item
    return replace(piece_of(item.id, item.tags, one.height, item=item), carrier=one.carrier)


class Pieces:
    """All pieces of one wallet on all gateways; what was read is kept, whoever asks again.

    `told` gathers everything that is worth a warning.
    """

    def __init__(self, signer: Sealer, gateways: Gateways) -> None:
        self._signer, self._gateways = signer, gateways
        self._limit = asyncio.Semaphore(IN_HAND)
        self._read: dict[str, Any] = {}
        self.all: dict[str, Piece] = {}
        self.told: list[str] = []
        self.refused: dict[str, StateError | WrongKey] = {}
        self.gateways = 0

    @property
    def owner(self) -> str:
        """The address under which gateways list this wallet's items."""
        return name_of(self._signer.public_key)

    async def find(self) -> None:
        """Find them, in listings and in bundles that no gateway unpacked."""
        listed = await self._gateways.find(self.owner, [*OURS, *KINDS])
        for found in listed.found:
            self._add(found.id, partial(listed_piece, found))
        # Where one gateway lacks what another lists, nobody's word counts for what a bundle holds.
        known = {name for found in listed.found for name in found.bundles}
        await self._unbundle(set() if listed.behind else known)
        self.told += _about_gateways(listed, len(self.all))
        self.gateways = len(listed.reports)

    async def read(self, piece: Piece, make: Callable[[Sealer, Item], T]) -> T | None:
        """Return what `make` makes of a piece's verified item, None for one that was refused."""
        if piece.id in self.refused:
            return None
        if piece.id not in self._read:
            try:
                async with self._limit:
                    self._read[piece.id] = await self._got(piece, make)
            except (StateCorrupt, StoreUnavailable, WrongKey) as error:  # anybody can list junk
                self.refused[piece.id] = error
                return None
        return self._read[piece.id]  # type: ignore[no-any-return]  # made by the same `make`

    # -- inside ----------------------------------------------------------------------------------

    def _add(self, name: str, made: Callable[[], Piece]) -> None:
        try:
            self.all.setdefault(name, made())
        except StateCorrupt as error:
            self.told.append(f"refused: {error}")

    async def _got(self, piece: Piece, make: Callable[[Sealer, Item], T]) -> T:
        """Return what one piece holds, from the first gateway whose bytes prove themselves."""
        if piece.item is not None:
            return await asyncio.to_thread(make, self._signer, piece.item)
        found = piece.found
        assert found is not None
        return await self._gateways.accepted(
            found.id,
            lambda data: make(self._signer, found.with_data(data)),
            lambda url, lie: self.told.append(f"{piece.label} from {url} failed: {lie}"),
        )

    async def _unbundle(self, known: Collection[str]) -> None:
        """Add pieces that travel in bundles which gateways did not take apart."""
        try:
            inside = await unbundled(self._gateways, self.owner, but=known)
        except StoreUnavailable as error:
            self.told.append(f"whether bundles hold more is not known: {error}")
            return
        for one in inside.items:
            if set(OURS) <= set(one.item.tags) and set(KINDS) & set(one.item.tags):
                self._add(one.item.id, partial(carried_piece, one))
        self.told += [f"refused: {told}" for told in inside.refused]


def _about_gateways(findings: MergedResults, known: int) -> Iterable[str]:
    """Say which gateways failed or lag, in words for people."""
    for report in findings.failed:
        yield f"gateway {report.url} failed: {report.problem}"
    for report in findings.behind:
        yield f"gateway {report.url} is behind: {report.listed} of {known} segments"
    if len(findings.reports) == 1:
        yield "head not corroborated: only one gateway was asked whether this is the newest state"
