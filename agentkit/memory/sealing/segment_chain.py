"""Puts the segments of a stream in order, and finds where the chain has gaps or forks.

Segments are compared by their position and content (stream, first event, the hashes before and
after them), never by their ids: anybody can make a second valid id out of a signature.  At a fork
the segment that was confirmed first wins; nothing is merged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentkit.journal import events as e
from agentkit.journal.rows import Row
from agentkit.memory.arweave.ans104 import Item
from agentkit.memory.sealing.segments import Segment

Position = tuple[int, bytes]
"""Where a segment starts: the number of its first event, and the hash before that event."""


@dataclass(frozen=True)
class SealedSegment:
    """A segment with the item that contains it.

    `height` is its block, None until it is mined.  `carrier` is the layer-1 transaction whose
    bundle this process unpacked to get it, "" if a gateway listed the item itself.
    """

    item: Item
    segment: Segment
    height: int | None
    carrier: str = ""

    @property
    def position(self) -> Position:
        """Where it starts."""
        return self.segment.first, self.segment.before

    @property
    def end(self) -> Position:
        """Where the segment that follows it starts."""
        return self.segment.last + 1, self.segment.head

    @property
    def precedence(self) -> tuple[bool, int, str]:
        """The sort key at a fork: the lowest block first, then what is in no block.

        The id decides within a block, since gateways do not say in which order a block has them.
        """
        return self.height is None, self.height or 0, self.item.id

    def __str__(self) -> str:
        segment = self.segment
        author = f" by {segment.instance}" if segment.instance else ""
        return f"item {self.item.id} (events {segment.first} to {segment.last}{author})"


@dataclass(frozen=True)
class Fork:
    """Two segments that both continue a stream after the same event.

    `lost` contains the events of the losing segment and of all segments that follow it.
    """

    stream: str
    winner: SealedSegment
    loser: SealedSegment
    lost: tuple[Row, ...]

    def __str__(self) -> str:
        message = (
            f"{self.stream} goes on in two ways after event {self.winner.segment.first - 1}:"
            f" {self.winner} counts, {self.loser} does not"
        )
        paid = payments(self.lost)
        return f"{message}; paid on the losing side: {', '.join(paid)}" if paid else message


@dataclass(frozen=True)
class Gap:
    """Events `first` to `last` of a stream, which no gateway has although later ones exist."""

    stream: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"steps {self.first} to {self.last} of {self.stream} are missing"


@dataclass(frozen=True)
class SegmentChain:
    """The segments of a stream that follow one another, and its gaps and forks."""

    stream: str
    parts: tuple[SealedSegment, ...]
    gaps: tuple[Gap, ...]
    forks: tuple[Fork, ...]

    @property
    def rows(self) -> list[Row]:
        """The events of the chain, in order."""
        return [row for part in self.parts for row in part.segment.rows]


def build_chain(stream: str, segments: Iterable[SealedSegment], start: Position) -> SegmentChain:
    """Return the chain of a stream's segments from `start` on, with its gaps and forks.

    Each segment names the hash before it, so the next one is the segment at the position where
    the last one ends.  If there are several, the stream was forked there.
    """
    remaining = _by_position(segments)
    parts: list[SealedSegment] = []
    forks: list[Fork] = []
    position = start
    while position in remaining:
        winner, *losers = remaining.pop(position)
        parts.append(winner)
        for loser in losers:
            lost = _take_branch(loser, remaining)
            forks.append(Fork(stream, winner=winner, loser=loser, lost=lost))
        position = winner.end
    forks += _take_forks_inside(stream, parts, remaining)

    next_seq = position[0]
    later_seqs = [first for first, _ in remaining if first > next_seq]
    gaps = (Gap(stream, first=next_seq, last=min(later_seqs) - 1),) if later_seqs else ()
    return SegmentChain(stream, parts=tuple(parts), gaps=gaps, forks=tuple(forks))


def payments(rows: Iterable[Row]) -> list[str]:
    """Return the payments among events of a wallet's stream, like "0.2 USDC to openai"."""
    events = [row.event() for row in rows if row.kind == e.Spent.stored_name]
    return [
        f"{event.amount} to {event.provider}"
        for event in events
        if isinstance(event, e.Spent) and event.amount
    ]


def _by_position(segments: Iterable[SealedSegment]) -> dict[Position, list[SealedSegment]]:
    """Return segments by position, the winner first; of copies only the first to be confirmed."""
    unique: dict[tuple[int, bytes, bytes], SealedSegment] = {}
    for part in sorted(segments, key=lambda part: part.precedence):
        unique.setdefault((*part.position, part.segment.head), part)
    by_position: dict[Position, list[SealedSegment]] = defaultdict(list)
    for part in unique.values():
        by_position[part.position].append(part)
    return dict(by_position)


def _take_branch(
    loser: SealedSegment, remaining: dict[Position, list[SealedSegment]]
) -> tuple[Row, ...]:
    """Remove all segments that follow a losing one; return their events after its own.

    They are removed so that they do not count as a gap of the chain.
    """
    rows = list(loser.segment.rows)
    unfollowed = [loser]
    while unfollowed:
        following = remaining.pop(unfollowed.pop().end, [])
        rows += [row for part in following for row in part.segment.rows]
        unfollowed += following
    return tuple(rows)


def _take_forks_inside(
    stream: str,
    parts: Sequence[SealedSegment],
    remaining: dict[Position, list[SealedSegment]],
) -> list[Fork]:
    """Remove and return the forks that leave the chain in the middle of one of its segments.

    The other machine may have sealed fewer events at once, so that its segment starts after an
    event inside of ours.  If it ends in an event of ours as well, it contains the same events.
    """
    forks: list[Fork] = []
    if not remaining:
        return forks
    for part in parts:
        hashes = {row.seq: row.hash for row in part.segment.rows}
        starting_inside = [
            other
            for row in part.segment.rows[:-1]
            for other in remaining.pop((row.seq + 1, row.hash), ())
        ]
        for other in starting_inside:
            if hashes.get(other.segment.last) == other.segment.head:
                continue
            lost = _take_branch(other, remaining)
            forks.append(Fork(stream, winner=part, loser=other, lost=lost))
    return forks
