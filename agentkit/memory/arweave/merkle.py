"""The chunks of a layer-1 transaction's data, and the proofs that they belong to it.

The tree is the one of arweave-js, which nodes recompute: chunks of 256 KiB, the last two evened
out so that none is smaller than 32 KiB, and an empty last leaf when the data ends on a boundary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from agentkit.errors import StateCorrupt

MAX_CHUNK = 256 * 1024
MIN_CHUNK = 32 * 1024
_HASH = 32
_BRANCH = 3 * _HASH  # left, right, where the right one starts
_LEAF = 2 * _HASH  # hash of the chunk, where it ends
MAX_PATH = 40 * _BRANCH + _LEAF
"""Bytes of the longest proof that is read: 2^40 chunks are more than the weave holds."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the data, from byte `start` on, with its proof."""

    data: bytes
    start: int
    path: bytes

    @property
    def offset(self) -> int:
        """Its last byte, by which nodes find it."""
        return self.start + len(self.data) - 1


@dataclass(frozen=True, slots=True)
class _Node:
    id: bytes
    end: int
    content: bytes  # of a leaf: the hash of its chunk
    children: tuple[_Node, _Node] | None = None


def chunked(data: bytes) -> tuple[bytes, tuple[Chunk, ...]]:
    """Return the data root and the chunks; no data has neither."""
    if not data:
        return b"", ()
    ranges = chunk_ranges(len(data))
    root = _tree([_leaf(data[start:end], end) for start, end in ranges])
    pairs = zip(ranges, _paths(root, b""), strict=True)
    chunks = (Chunk(data[start:end], start, path) for (start, end), path in pairs if end > start)
    return root.id, tuple(chunks)


def chunk_ranges(size: int) -> list[tuple[int, int]]:
    """Return where the chunks of `size` bytes start and end, an empty last one included."""
    ranges, start = [], 0
    while (rest := size - start) >= MAX_CHUNK:
        even = 0 < rest - MAX_CHUNK < MIN_CHUNK
        end = start + ((rest + 1) // 2 if even else MAX_CHUNK)
        ranges.append((start, end))
        start = end
    return [*ranges, (start, size)]


def proven_range(root: bytes, size: int, offset: int, path: bytes, chunk: bytes) -> tuple[int, int]:
    """Return (start, end) of `chunk` in `size` bytes of data; raises StateCorrupt.

    The path must lead from the root to the leaf that holds byte `offset`, and that leaf must be
    this chunk, end where the branches say and be as long as its place.
    """
    if not 0 <= offset < size or not _LEAF <= len(path) <= MAX_PATH:
        raise StateCorrupt("the proof is not one for this data")
    start, end = 0, size
    while len(path) > _LEAF:
        left = path[:32]
        right = path[32:64]
        note = path[64:96]
        path = path[_BRANCH:]
        if _digest(left, right, note) != root:
            raise StateCorrupt("a branch of the proof does not lead to the data root")
        split = int.from_bytes(note, "big")
        if offset < split:
            root, end = left, min(end, split)
        else:
            root, start = right, max(start, split)
    content, note = path[:32], path[32:]
    if _digest(content, note) != root or hashlib.sha256(chunk).digest() != content:
        raise StateCorrupt("the proof is one of another chunk")
    if int.from_bytes(note, "big") != end or end - start != len(chunk) or len(chunk) > MAX_CHUNK:
        raise StateCorrupt("the chunk does not fit its place")
    return start, end


def _tree(layer: list[_Node]) -> _Node:
    while len(layer) > 1:
        pairs = [layer[place : place + 2] for place in range(0, len(layer), 2)]
        layer = [_branch(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return layer[0]


def _leaf(data: bytes, end: int) -> _Node:
    content = hashlib.sha256(data).digest()
    return _Node(_digest(content, _note(end)), end, content)


def _branch(left: _Node, right: _Node) -> _Node:
    return _Node(_digest(left.id, right.id, _note(left.end)), right.end, b"", (left, right))


def _paths(node: _Node, above: bytes) -> Iterator[bytes]:
    if not node.children:
        yield above + node.content + _note(node.end)
        return
    left, right = node.children
    here = above + left.id + right.id + _note(left.end)
    yield from _paths(left, here)
    yield from _paths(right, here)


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def _note(number: int) -> bytes:
    return number.to_bytes(_HASH, "big")
