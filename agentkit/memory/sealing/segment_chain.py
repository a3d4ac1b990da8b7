"""Which segments of a stream follow one another: its chain, and where it breaks or forks.

Segments are told apart by where they stand and what they hold (stream, first event, the hashes
before and after), never by their ids: a second valid id can be made of anybody's signature.
At a fork the segment that was confirmed first wins; nothing is merged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentkit.journal import events as e
from agentkit.journal.rows import Row
from agentkit.memory.arweave.ans104 import Item
from agentkit.memory.sealing.segments import Segment

Place = tuple[int, bytes]
"""The number of an event and the hash before it."""


@dataclass(frozen=True)
class Sealed:
    """A segment with the item it came in, out of the transaction `carrier` if we unpacked it."""

    item: Item
    segment: Segment
    height: int | None
    carrier: str = ""

    @property
    def place(self) -> Place:
        return self.segment.first, self.segment.before

    @property
    def age(self) -> tuple[bool, int, str]:
        """What decides at a fork: confirmed first; gateways do not tell places inside a block."""
        return self.height is None, self.height or 0, self.item.id

    def __str__(self) -> str:
        part = self.segment
        who = f" by {part.instance}" if part.instance else ""
        return f"item {self.item.id} (events {part.first} to {part.last}{who})"


@dataclass(frozen=True)
class Fork:
    """Two ways in which a stream goes on; `lost` is everything that follows the losing one."""

    stream: str
    winner: Sealed
    loser: Sealed
    lost: tuple[Row, ...]

    def __str__(self) -> str:
        told = (
            f"{self.stream} goes on in two ways after event {self.winner.segment.first - 1}:"
            f" {self.winner} counts, {self.loser} does not"
        )
        paid = payments(self.lost)
        return f"{told}; paid on the losing side: {', '.join(paid)}" if paid else told


@dataclass(frozen=True)
class Gap:
    """Events `first` to `last` of a stream that no gateway has, while it has later ones."""

    stream: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"steps {self.first} to {self.last} of {self.stream} are missing"


@dataclass(frozen=True)
class SegmentChain:
    """The segments of a stream that follow one another, and what does not."""

    stream: str
    parts: tuple[Sealed, ...]
    gaps: tuple[Gap, ...]
    forks: tuple[Fork, ...]

    @property
    def rows(self) -> list[Row]:
        return [row for part in self.parts for row in part.segment.rows]


def follow(stream: str, found: Iterable[Sealed], start: Place) -> SegmentChain:
    """Return the chain that begins at a place."""
    ways = _by_place(found)
    parts: list[Sealed] = []
    forks: list[Fork] = []
    place = start
    while place in ways:
        winner, *losers = ways.pop(place)
        parts.append(winner)
        forks += [Fork(stream, winner, loser, _after(loser, ways)) for loser in losers]
        place = (winner.segment.last + 1, winner.segment.head)
    forks += _inside(stream, parts, ways)
    later = [first for first, _ in ways if first > place[0]]
    gaps = (Gap(stream, place[0], min(later) - 1),) if later else ()
    return SegmentChain(stream, tuple(parts), gaps, tuple(forks))


def payments(rows: Iterable[Row]) -> list[str]:
    """Return what rows of a wallet's stream paid, in words."""
    spent = [row.event() for row in rows if row.kind == e.Spent.stored_name]
    return [f"{s.amount} to {s.provider}" for s in spent if isinstance(s, e.Spent) and s.amount]


def _by_place(found: Iterable[Sealed]) -> dict[Place, list[Sealed]]:
    """Return segments by place, the one that counts first; copies of one count once."""
    unique: dict[tuple[int, bytes, bytes], Sealed] = {}
    for part in sorted(found, key=lambda part: part.age):
        unique.setdefault((*part.place, part.segment.head), part)
    ways: dict[Place, list[Sealed]] = defaultdict(list)
    for part in unique.values():
        ways[part.place].append(part)
    return dict(ways)


def _after(loser: Sealed, ways: dict[Place, list[Sealed]]) -> tuple[Row, ...]:
    """Return the rows of a losing segment and of what follows it, which are taken out."""
    rows, next_ones = list(loser.segment.rows), [loser]
    while next_ones:
        last = next_ones.pop().segment
        following = ways.pop((last.last + 1, last.head), [])
        rows += [row for part in following for row in part.segment.rows]
        next_ones += following
    return tuple(rows)


def _inside(stream: str, parts: Sequence[Sealed], ways: dict[Place, list[Sealed]]) -> list[Fork]:
    """Return forks that leave the chain in the middle of a segment, and take them out."""
    forks: list[Fork] = []
    for part in parts if ways else ():
        hashes = {row.seq: row.hash for row in part.segment.rows}
        others = [
            other
            for row in part.segment.rows[:-1]
            for other in ways.pop((row.seq + 1, row.hash), ())
            if hashes.get(other.segment.last) != other.segment.head  # else the same events again
        ]
        forks += [Fork(stream, part, other, _after(other, ways)) for other in others]
    return forks
