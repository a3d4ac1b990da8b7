"""Block height, hashes and times.

Blocks are a function of the clock, so none is written unless it holds something: an idle week is
one row.  Their hashes follow from a random seed of this gateway and the height, and from another
seed above the height at which a reorg began.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from dataclasses import dataclass

from agentkit.memory.arweave.base64url import b64url

ANCHOR_AGE = 50
"""Blocks for which a transaction may name an anchor."""
ANCHOR_DEPTH = 6
"""How deep the block lies that nodes offer as an anchor."""


@dataclass(frozen=True, slots=True)
class BlockHead:
    """The newest block; `time` in unix seconds."""

    height: int
    time: float

    def due(self, now: float, seconds: float) -> int:
        """Return how many blocks of `seconds` have passed since, none if there is no rhythm."""
        return max(0, int((now - self.time) // seconds)) if seconds else 0

    def after(self, blocks: int, seconds: float) -> BlockHead:
        return BlockHead(self.height + blocks, self.time + blocks * seconds)


class Blocks:
    """The chain of blocks as rows of `head` and `block`."""

    def __init__(self, database: sqlite3.Connection, now: float) -> None:
        self._database = database
        seed = secrets.token_bytes(32)
        database.execute("insert or ignore into head values (0, ?, 0, ?)", (seed, now))
        (seed,) = database.execute("select seed from head").fetchone()
        branches = database.execute("select above, seed from branch order by number").fetchall()
        self._branches: list[tuple[int, bytes]] = [(-1, seed), *branches]

    @property
    def head(self) -> BlockHead:
        return BlockHead(*self._database.execute("select height, time from head").fetchone())

    def advance(self, head: BlockHead) -> None:
        """Make `head` the newest block."""
        self._database.execute("update head set height = ?, time = ?", (head.height, head.time))

    def keep(self, block: BlockHead) -> None:
        """Write down a block that holds something."""
        self._database.execute(
            "insert or ignore into block values (?, ?)", (block.height, block.time)
        )

    def time_of(self, height: int) -> int:
        """Return when a block that holds something was mined, in unix seconds."""
        row = self._database.execute("select time from block where height = ?", (height,))
        return int(row.fetchone()[0])

    def hash_of(self, height: int) -> str:
        """Return the 48-byte hash of the block at `height`, on the branch that holds now."""
        seed = next(seed for above, seed in reversed(self._branches) if height > above)
        return b64url(hashlib.sha384(seed + b"%d" % height).digest())

    def branch(self, above: int) -> None:
        """Have other blocks above a height than there were."""
        seed = secrets.token_bytes(32)
        self._database.execute("insert into branch (above, seed) values (?, ?)", (above, seed))
        self._database.execute("delete from block where height > ?", (above,))
        self._branches.append((above, seed))

    def anchor(self) -> str:
        """Return the hash that a transaction made now should name: one that will stay."""
        return self.hash_of(max(0, self.head.height - ANCHOR_DEPTH))

    def anchors(self) -> set[str]:
        """Return the hashes a transaction may name now."""
        newest = self.head.height
        return {self.hash_of(h) for h in range(max(0, newest - ANCHOR_AGE), newest + 1)}
