"""Restoring an agent from Arweave with nothing but its key.

Every gateway is asked and the union of their answers taken; every item's id, owner, signature,
seal and place in its chain is checked.  Nothing is guessed, and nothing starts empty in silence.
Going on needs the newest snapshot and the segments after it; whoever wants the whole past reads
everything.
"""

from __future__ import annotations

import asyncio
import gc
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agentkit.errors import RunNotFound, StateCorrupt, StateError
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal import snapshot as moments
from agentkit.journal.fold import fold
from agentkit.journal.journal import Journal
from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.journal.rows import Row, genesis
from agentkit.journal.snapshot import Snapshot
from agentkit.journal.transaction import JournalTransaction
from agentkit.memory.arweave.ans104 import Item
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.restore.remote_log import Piece, Pieces
from agentkit.memory.sealing import segments, snapshots
from agentkit.memory.sealing.sealer import Sealer
from agentkit.memory.sealing.segment_chain import Fork, Gap, Place, Sealed, SegmentChain, follow
from agentkit.memory.sealing.segments import Segment, opaque

NOTHING_OPENS = "gateways list snapshots of this wallet, and no segment that can be read"

TRIES = 8
"""Snapshots that are tried, newest first, before everything is read."""


@dataclass(frozen=True)
class RestoredWallet:
    """What was found: the chain of every stream, and everything worth a warning.

    `snapshot` with its item stands for the events before the chains, where there is one.
    `problems` are reasons not to go on, each in words: steps that are missing or damaged.
    `anchored` is the head on the chain where nothing that was found explains it; `corroborated`
    says that all is there that the anchored head stands for.
    """

    streams: Mapping[str, tuple[Sealed, ...]]
    warnings: tuple[str, ...]
    problems: tuple[str, ...] = ()
    forks: tuple[Fork, ...] = ()
    snapshot: Snapshot | None = None
    snapshot_item: Item | None = None
    anchored: str = ""
    corroborated: bool = False

    @property
    def earlier(self) -> int:
        """How many events the snapshot stands for."""
        return self.snapshot.count if self.snapshot else 0

    @property
    def events(self) -> int:
        """How many events were found, those that the snapshot stands for included."""
        parts = (part for chain in self.streams.values() for part in chain)
        return self.earlier + sum(len(part.segment.rows) for part in parts)

    @property
    def names(self) -> set[str]:
        """The streams there are."""
        return set(self.streams) | set(self.snapshot.heads if self.snapshot else ())

    def rows(self, stream: str) -> list[Row]:
        """Return the rows of one stream, those after the snapshot."""
        return [row for part in self.streams.get(stream, ()) for row in part.segment.rows]


async def fetch(
    signer: Sealer, gateways: Gateways, *, whole: bool = False, only: Sequence[str] = ()
) -> RestoredWallet:
    """Find, verify and open what a key has on Arweave: the newest state, or the `whole` past.

    `only` names streams, of which everything is read.  Raises RunNotFound when no gateway has
    any, WrongKey, StateCorrupt when nothing that is there can be read, StoreUnavailable.
    """
    pieces = Pieces(signer, gateways)
    await pieces.find()
    if not pieces.all:
        if pieces.told and any("refused" in told for told in pieces.told):
            raise StateCorrupt("; ".join(pieces.told))
        raise RunNotFound(
            f"no gateway has any agentkit state for address {pieces.owner} (key of"
            f" {signer.address})",
            hint="check the keystore and memory.gateways; nothing was made or changed",
        )
    reading = _Reading(signer, pieces)
    if only:
        return await reading.streams(only)
    return (None if whole else await reading.newest()) or await reading.everything()


async def restore(
    restored: RestoredWallet, home: Path, address: str, *, accept_loss: bool = False
) -> Journal:
    """Write what was fetched into a new state file and return its open journal.

    Raises StateCorrupt where steps are missing, unless `accept_loss` gives them up, StateError
    when the wallet already has a state file with events in it.
    """
    if restored.problems and not accept_loss:
        raise StateCorrupt(
            "; ".join(restored.problems),
            hint="start the old machine if it lives, so that it posts them again, or ask another"
            " gateway; else give them up with `agentkit memory restore --accept-loss`",
        )
    journal = await Journal.open(home, address)
    try:
        await journal.commit(lambda tx: _uncollected(tx, restored))
    except BaseException:
        await journal.close()
        raise
    return journal


async def bring(restored: RestoredWallet, journal: Journal, streams: Iterable[str]) -> int:
    """Write the events that a snapshot stands for here, and return how many they were.

    Raises RunNotFound for a stream that is not there, StateCorrupt when they are others.
    """
    return await journal.commit(lambda tx: sum(_bring(tx, restored, s) for s in streams))


async def compare(restored: RestoredWallet, journal: Journal) -> list[str]:
    """Return how a state file differs from what Arweave has of it; empty when they agree.

    Events that were never sealed are not a difference.
    """
    return await journal.commit(
        lambda tx: [told for stream in restored.streams for told in _compare(tx, restored, stream)]
    )


# -- reading -------------------------------------------------------------------------------------


class _Reading:
    """Reads pieces in the order that is asked for; nothing twice."""

    def __init__(self, signer: Sealer, pieces: Pieces) -> None:
        self._signer, self._pieces = signer, pieces
        known = list(pieces.all.values())
        self._segments = [piece for piece in known if piece.kind != "snapshot"]
        self._snapshots = [piece for piece in known if piece.kind == "snapshot"]

    async def newest(self) -> RestoredWallet | None:
        """Return the newest snapshot and what follows it; None where only the whole is safe."""
        for piece in sorted(self._snapshots, key=lambda piece: -piece.last)[:TRIES]:
            read = await self._pieces.read(piece, _opened)
            if read is not None and isinstance(read[1], Snapshot):
                return await self._after(read[0], read[1])
        return None

    async def _after(self, item: Item, snapshot: Snapshot) -> RestoredWallet | None:
        after, before = self._divided(snapshot)
        if _fork(before):
            return None
        found = self._restored(await self._read(after), snapshot.heads)
        if found.problems or found.forks:
            return None
        return replace(found, snapshot=snapshot, snapshot_item=item)

    async def everything(self) -> RestoredWallet:
        """Return all there is, every item read and checked, snapshots too."""
        sealed = await self._read(self._segments)
        found = self._restored(sealed, {})
        if found.problems or not sealed:  # a tag may have called a segment a snapshot
            sealed += await self._read(self._snapshots)
            found = self._restored(sealed, {})
        if not sealed:
            raise next(iter(self._pieces.refused.values()), RunNotFound(NOTHING_OPENS))
        return found

    async def streams(self, names: Sequence[str]) -> RestoredWallet:
        """Return all there is of some streams."""
        runs = {opaque(self._signer, name) for name in names}
        found = self._restored(
            await self._read([p for p in self._segments if p.run in runs or not p.kind]), {}
        )
        return await self.everything() if found.problems else found  # a tag may have lied

    def _divided(self, snapshot: Snapshot) -> tuple[list[Piece], list[Piece]]:
        """Return the segments after a snapshot, and those that it stands for."""
        upto = {opaque(self._signer, name): seq for name, (seq, _) in snapshot.heads.items()}
        after: list[Piece] = []
        before: list[Piece] = []
        for piece in self._segments:
            stood_for = piece.kind and piece.last <= upto.get(piece.run, 0)
            (before if stood_for else after).append(piece)
        return after, before

    async def _read(self, pieces: Sequence[Piece]) -> list[Sealed]:
        """Return the segments among what is read; a tag may have called a snapshot one."""
        read = await asyncio.gather(*(self._pieces.read(piece, _opened) for piece in pieces))
        return [
            Sealed(got[0], got[1], piece.height, piece.carrier)
            for piece, got in zip(pieces, read, strict=True)
            if got is not None and isinstance(got[1], Segment)
        ]

    def _restored(self, sealed: Sequence[Sealed], starts: Mapping[str, Place]) -> RestoredWallet:
        """Return everything that was read, with what is missing, forked or refused."""
        chains = _chains(sealed, starts)
        problems = [self._about(gap) for chain in chains for gap in chain.gaps]
        problems += self._cut_off(chains, starts)
        forks = tuple(fork for chain in chains for fork in chain.forks)
        refused = [f"refused: {wrong}" for wrong in self._pieces.refused.values()]
        return RestoredWallet(
            {chain.stream: chain.parts for chain in chains if chain.parts},
            (*self._pieces.told, *refused, *problems, *map(str, forks)),
            tuple(problems),
            forks,
        )

    def _about(self, gap: Gap) -> str:
        everywhere = f"all {self._pieces.gateways} gateways" if self._more else "the only gateway"
        return f"{gap} on {everywhere}; {_good(gap.first - 1)}"

    @property
    def _more(self) -> bool:
        return self._pieces.gateways > 1

    def _cut_off(
        self, chains: Sequence[SegmentChain], starts: Mapping[str, Place]
    ) -> Iterable[str]:
        """Say which segments would follow a chain's end, or begin one, if they could be read."""
        ends = {opaque(self._signer, name): (name, *place) for name, place in starts.items()}
        for chain in chains:
            if chain.parts:
                last = chain.parts[-1].segment
                ends[opaque(self._signer, chain.stream)] = (chain.stream, last.last, last.head)
        for piece in self._segments:
            wrong = self._pieces.refused.get(piece.id)
            name, seq, head = ends.get(piece.run, (piece.run, 0, b""))
            follows = piece.first == seq + 1 and (not seq or piece.prev == head.hex())
            if wrong and follows:
                yield f"steps {piece.first} to {piece.last} of {name}: {wrong}; {_good(seq)}"


def _good(seq: int) -> str:
    return f"the last good step is {seq}" if seq else "no step is good"


def _opened(signer: Sealer, item: Item) -> tuple[Item, Segment | Snapshot]:
    """Read a verified item as what its own tags say it is."""
    if snapshots.KIND in item.tags:
        return item, snapshots.unseal(signer, item)
    return item, segments.unseal(signer, item)


def _fork(pieces: Iterable[Piece]) -> bool:
    """Whether tags claim two different segments for one place."""
    heads: dict[tuple[str, int, str], str] = {}
    return any(heads.setdefault((p.run, p.first, p.prev), p.head) != p.head for p in pieces)


def _chains(sealed: Sequence[Sealed], starts: Mapping[str, Place]) -> list[SegmentChain]:
    """Return the parts of each stream as chains, from where the snapshot ends."""
    by_stream: dict[str, list[Sealed]] = defaultdict(list)
    for part in sealed:
        by_stream[part.segment.stream].append(part)
    chains = []
    for stream, parts in by_stream.items():
        seq, head = starts.get(stream, (0, genesis(stream)))
        chains.append(follow(stream, parts, (seq + 1, head)))
    return chains


# -- writing -------------------------------------------------------------------------------------


def _uncollected(tx: JournalTransaction, restored: RestoredWallet) -> None:
    """Write with the collector of cycles off.

    So many new objects at once, none of them in a cycle, have it look through all of them again
    and again: a quarter of the time.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        _write(tx, restored)
        tx.flush()
    finally:
        if on:
            gc.enable()


def _write(tx: JournalTransaction, restored: RestoredWallet) -> None:
    """Write what was restored into an empty state file, in one transaction."""
    if tx.streams():
        raise StateError(
            "this wallet already has state here",
            hint="move its folder away, or set AGENTKIT_HOME to an empty one",
        )
    if restored.snapshot and restored.snapshot_item:
        moments.put(tx, restored.snapshot)
        count, item = restored.earlier, restored.snapshot_item
        now = int(tx.now * 1e6)
        name = snapshots.SNAPSHOTS
        place = (name, count, count)
        tx.outbox.put(OutgoingSegment(item.id, *place, item.raw, "accepted", now, moved=now))
    for stream, parts in restored.streams.items():
        for part in parts:
            _write_segment(tx, stream, part)
    last = tx.get(r.Restoration, "newest")
    epoch = (last.epoch if last else 0) + 1
    life = {"events": restored.events, "epoch": epoch, "instance": tx.instance}
    tx.append(e.WALLET, e.Restored(**life, anchor=restored.anchored))


def _write_segment(tx: JournalTransaction, stream: str, part: Sealed) -> None:
    """Write the rows of a segment, fold them, and note it as sealed."""
    segment = part.segment
    tx.put_blobs(segment.blobs)
    tx.insert_all(segment.rows)
    for row in segment.rows:
        try:
            fold(row.event(), stream, row.at / 1e6, tx)
        except ValueError as error:
            raise StateCorrupt(f"{row.name} cannot be read: {error}") from error
    _put_segment(tx, stream, part)


def _put_segment(tx: JournalTransaction, stream: str, part: Sealed) -> None:
    """Note a segment in the outbox as one that lies on Arweave."""
    segment = part.segment
    item = part.item
    at = part.segment.rows[-1].at
    state = "mined" if part.height is not None else "accepted"
    place = (stream, segment.first, segment.last)
    tx.outbox.put(
        OutgoingSegment(item.id, *place, item.raw, state, at, carrier=part.carrier, moved=at)
    )


def _bring(tx: JournalTransaction, restored: RestoredWallet, stream: str) -> int:
    """Bring the events before a snapshot back; returns how many, 0 if they are here."""
    base = tx.base(stream)
    if base is None or not tx.start(stream)[0]:
        return 0  # all of it is here
    rows = restored.rows(stream)[: base.seq]
    if not rows:
        raise RunNotFound(f"no gateway has any step of {stream}")
    if len(rows) < base.seq or rows[-1].hash != base.hash:
        raise StateCorrupt(f"the first {base.seq} steps of {stream} are not all on any gateway")
    tx.insert_all(rows)
    tx.flush()
    tx.forget()
    for part in restored.streams[stream]:
        tx.put_blobs(part.segment.blobs)
        if part.segment.last <= base.seq:
            _put_segment(tx, stream, part)
    return len(rows)


def _compare(tx: JournalTransaction, restored: RestoredWallet, stream: str) -> Iterable[str]:
    """Yield where a stream here differs from the one on Arweave."""
    there = restored.rows(stream)
    seq, head = tx.start(stream)
    if 0 < seq <= len(there) and there[seq - 1].hash != head:
        yield f"{there[seq - 1].name} is not the one that the snapshot here stands on"
    for mine in tx.rows(stream, seq, max(0, len(there) - seq)):
        theirs = there[mine.seq - 1]
        if mine != theirs:
            yield f"{theirs.name} differs"
            break
    missing = len(there) - tx.head(stream)[0]
    if missing > 0:
        yield f"{stream}: {missing} events are missing here"
