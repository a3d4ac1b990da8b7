"""Restores an agent's state from Arweave; only the wallet's key is needed.

All gateways are asked, and their answers are merged.  Of every item the id, owner, signature,
encryption and position in its chain are checked.  If nothing can be found or read, that is an
error and never an empty state.  By default only the newest snapshot and the segments after it are
read; the whole history is read on request.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agentkit.errors import RunNotFound, StateCorrupt
from agentkit.journal.journal import Journal
from agentkit.journal.rows import genesis
from agentkit.journal.snapshot import Snapshot
from agentkit.journal.transaction import JournalTransaction
from agentkit.memory.arweave.ans104 import Item
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.restore.remote_log import Piece, Pieces
from agentkit.memory.restore.restored_wallet import RestoredWallet
from agentkit.memory.restore.state_writer import (
    differences_in,
    write_earlier_events,
    write_without_gc,
)
from agentkit.memory.sealer import Sealer
from agentkit.memory.sealing import segments, snapshots
from agentkit.memory.sealing.segment_chain import (
    Gap,
    Position,
    SealedSegment,
    SegmentChain,
    build_chain,
)
from agentkit.memory.sealing.segments import Segment, public_stream_name

NOTHING_OPENS = "gateways list snapshots of this wallet, and no segment that can be read"

TRIES = 8
"""How many snapshots are tried, newest first, before all segments are read instead."""


async def fetch(
    signer: Sealer, gateways: Gateways, *, whole: bool = False, only: Sequence[str] = ()
) -> RestoredWallet:
    """Find, verify and decrypt the state that a wallet's key has on Arweave.

    By default the newest state is read, with `whole` the whole history.  `only` names streams; then
    all of their history is read, and nothing else.  Raises RunNotFound if no gateway has anything,
    StateCorrupt if nothing can be read, WrongKey, and StoreUnavailable.
    """
    pieces = Pieces(signer, gateways)
    await pieces.find()
    if not pieces.all:
        if any("refused" in warning for warning in pieces.warnings):
            raise StateCorrupt("; ".join(pieces.warnings))
        raise RunNotFound(
            f"no gateway has any agentkit state for address {pieces.owner} (key of"
            f" {signer.address})",
            hint="check the keystore and memory.gateways; nothing was made or changed",
        )

    reader = _WalletReader(signer, pieces)
    if only:
        return await reader.read_streams(only)
    newest = None if whole else await reader.read_newest()
    return newest or await reader.read_everything()


async def restore(
    restored: RestoredWallet, home: Path, address: str, *, accept_loss: bool = False
) -> Journal:
    """Write a fetched wallet into a new state file and return its open journal.

    Raises StateCorrupt if steps are missing, unless `accept_loss` gives them up, and StateError if
    the wallet already has a state file with events in it.
    """
    if restored.problems and not accept_loss:
        raise StateCorrupt(
            "; ".join(restored.problems),
            hint="start the old machine if it lives, so that it posts them again, or ask another"
            " gateway; else give them up with `agentkit memory restore --accept-loss`",
        )
    journal = await Journal.open(home, address)
    try:
        await journal.commit(lambda tx: write_without_gc(tx, restored))
    except BaseException:
        await journal.close()
        raise
    return journal


async def bring_earlier_events(
    restored: RestoredWallet, journal: Journal, streams: Iterable[str]
) -> int:
    """Write the events of streams that the local snapshot covers, and return how many.

    After a restore from a snapshot these events are only on Arweave; a stream's history needs
    them.  Raises RunNotFound for a stream that no gateway has, and StateCorrupt if its events do
    not lead to the snapshot.
    """

    def work(tx: JournalTransaction) -> int:
        return sum(write_earlier_events(tx, restored, stream) for stream in streams)

    return await journal.commit(work)


async def compare(restored: RestoredWallet, journal: Journal) -> list[str]:
    """Return the differences between a state file and Arweave, in sentences; empty if none.

    Events that were never sealed are not a difference.
    """

    def work(tx: JournalTransaction) -> list[str]:
        differences: list[str] = []
        for stream in restored.streams:
            differences += differences_in(tx, restored, stream)
        return differences

    return await journal.commit(work)


# -- reading -------------------------------------------------------------------------------------


class _WalletReader:
    """Reads the pieces of a wallet that a restore needs, and puts them in order.

    Which pieces are needed is decided by their tags.  Tags are claims, so where the result has
    gaps, more is read than the tags asked for.
    """

    def __init__(self, signer: Sealer, pieces: Pieces) -> None:
        self._signer = signer
        self._pieces = pieces
        all_pieces = list(pieces.all.values())
        self._segments = [piece for piece in all_pieces if piece.kind != "snapshot"]
        self._snapshots = [piece for piece in all_pieces if piece.kind == "snapshot"]

    async def read_newest(self) -> RestoredWallet | None:
        """Return the newest readable snapshot with the segments after it.

        None if there is no snapshot, or if something after or before it is wrong: then only the
        whole history shows what can be restored.
        """
        newest_first = sorted(self._snapshots, key=lambda piece: -piece.last)
        for piece in newest_first[:TRIES]:
            opened = await self._pieces.read(piece, _open_piece)
            if opened is None:
                continue
            item, content = opened
            if isinstance(content, Snapshot):
                return await self._read_after(item, content)
        return None

    async def _read_after(self, item: Item, snapshot: Snapshot) -> RestoredWallet | None:
        """Return a snapshot with the segments after it; None if there is a gap or a fork."""
        after, before = self._split_at(snapshot)
        if _claims_fork(before):
            return None
        restored = self._assemble(await self._read_segments(after), snapshot.heads)
        if restored.problems or restored.forks:
            return None
        return replace(restored, snapshot=snapshot, snapshot_item=item)

    async def read_everything(self) -> RestoredWallet:
        """Return the whole history, from segments alone."""
        sealed = await self._read_segments(self._segments)
        restored = self._assemble(sealed, {})
        if restored.problems or not sealed:
            # A wrong tag may have listed a segment as a snapshot.
            sealed += await self._read_segments(self._snapshots)
            restored = self._assemble(sealed, {})
        if not sealed:
            raise next(iter(self._pieces.refused.values()), RunNotFound(NOTHING_OPENS))
        return restored

    async def read_streams(self, names: Sequence[str]) -> RestoredWallet:
        """Return the whole history of some streams."""
        runs = {public_stream_name(self._signer, name) for name in names}
        relevant = [piece for piece in self._segments if piece.run in runs or not piece.kind]
        restored = self._assemble(await self._read_segments(relevant), {})
        if restored.problems:
            # A wrong tag may have listed a segment under another stream.
            return await self.read_everything()
        return restored

    def _split_at(self, snapshot: Snapshot) -> tuple[list[Piece], list[Piece]]:
        """Return the segments after a snapshot, and those that it covers.

        A piece whose kind is disputed counts as one after it, so that it is read.
        """
        covered_seqs = {
            public_stream_name(self._signer, name): seq for name, (seq, _) in snapshot.heads.items()
        }
        after: list[Piece] = []
        before: list[Piece] = []
        for piece in self._segments:
            if piece.kind and piece.last <= covered_seqs.get(piece.run, 0):
                before.append(piece)
            else:
                after.append(piece)
        return after, before

    async def _read_segments(self, pieces: Sequence[Piece]) -> list[SealedSegment]:
        """Return the pieces that are readable and that are segments, whatever their tags say."""
        opened_pieces = await asyncio.gather(
            *(self._pieces.read(piece, _open_piece) for piece in pieces)
        )
        sealed: list[SealedSegment] = []
        for piece, opened in zip(pieces, opened_pieces, strict=True):
            if opened is None:
                continue
            item, content = opened
            if isinstance(content, Segment):
                sealed.append(
                    SealedSegment(
                        item=item, segment=content, height=piece.height, carrier=piece.carrier
                    )
                )
        return sealed

    def _assemble(
        self, sealed: Sequence[SealedSegment], starts: Mapping[str, Position]
    ) -> RestoredWallet:
        """Put segments in order, from `starts` on, and say what is missing, forked or refused."""
        chains = _chains(sealed, starts)
        problems = [self._gap_message(gap) for chain in chains for gap in chain.gaps]
        problems += self._unreadable_steps(chains, starts)
        forks = tuple(fork for chain in chains for fork in chain.forks)
        refused = [f"refused: {error}" for error in self._pieces.refused.values()]
        return RestoredWallet(
            streams={chain.stream: chain.parts for chain in chains if chain.parts},
            warnings=(*self._pieces.warnings, *refused, *problems, *map(str, forks)),
            problems=tuple(problems),
            forks=forks,
        )

    def _gap_message(self, gap: Gap) -> str:
        count = self._pieces.gateways
        asked = f"all {count} gateways" if count > 1 else "the only gateway"
        return f"{gap} on {asked}; {_last_good(gap.first - 1)}"

    def _unreadable_steps(
        self, chains: Sequence[SegmentChain], starts: Mapping[str, Position]
    ) -> Iterable[str]:
        """Say which unreadable segments would continue a chain, or begin one.

        Without this the end of a chain would look like the end of its stream.
        """
        # By public name: the stream's name, and the number and hash of its last readable event.
        ends: dict[str, tuple[str, int, bytes]] = {}
        for name, (seq, head) in starts.items():
            ends[public_stream_name(self._signer, name)] = (name, seq, head)
        for chain in chains:
            if chain.parts:
                segment = chain.parts[-1].segment
                public_name = public_stream_name(self._signer, chain.stream)
                ends[public_name] = (chain.stream, segment.last, segment.head)

        for piece in self._segments:
            error = self._pieces.refused.get(piece.id)
            if error is None:
                continue
            name, seq, head = ends.get(piece.run, (piece.run, 0, b""))
            is_next = piece.first == seq + 1
            if is_next and (seq == 0 or piece.prev == head.hex()):
                yield f"steps {piece.first} to {piece.last} of {name}: {error}; {_last_good(seq)}"


def _last_good(seq: int) -> str:
    return f"the last good step is {seq}" if seq else "no step is good"


def _open_piece(signer: Sealer, item: Item) -> tuple[Item, Segment | Snapshot]:
    """Decrypt a verified item; its own signed tags say whether it is a snapshot."""
    if snapshots.KIND in item.tags:
        return item, snapshots.unseal(signer, item)
    return item, segments.unseal(signer, item)


def _claims_fork(pieces: Iterable[Piece]) -> bool:
    """Whether tags claim two different segments at one position."""
    heads: dict[tuple[str, int, str], str] = {}
    for piece in pieces:
        first_head = heads.setdefault((piece.run, piece.first, piece.prev), piece.head)
        if first_head != piece.head:
            return True
    return False


def _chains(sealed: Sequence[SealedSegment], starts: Mapping[str, Position]) -> list[SegmentChain]:
    """Return the chain of each stream, from the end of the snapshot or from the first event."""
    by_stream: dict[str, list[SealedSegment]] = defaultdict(list)
    for part in sealed:
        by_stream[part.segment.stream].append(part)
    chains = []
    for stream, parts in by_stream.items():
        seq, head = starts.get(stream, (0, genesis(stream)))
        chains.append(build_chain(stream, parts, (seq + 1, head)))
    return chains
