"""The chunks of a layer-1 transaction's data, and the Merkle proofs that they belong to it.

Nodes compute the same tree, so it follows arweave-js exactly.  Chunks have 256 KiB.  If the last
one would have less than 32 KiB, the last two are made equally long.  If the data ends on the
boundary of a chunk, an empty leaf follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from agentkit.errors import StateCorrupt

MAX_CHUNK = 256 * 1024
MIN_CHUNK = 32 * 1024
_HASH = 32
_BRANCH = 3 * _HASH  # in a proof: id of the left child, id of the right one, where that starts
_LEAF = 2 * _HASH  # in a proof: hash of the chunk, where it ends
MAX_PATH = 40 * _BRANCH + _LEAF
"""The longest proof that is read, in bytes; a tree of 40 levels has more chunks than exist."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the data, from byte `start` on; `path` is its proof."""

    data: bytes
    start: int
    path: bytes

    @property
    def offset(self) -> int:
        """The position of its last byte, by which nodes find it."""
        return self.start + len(self.data) - 1


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of the tree over the bytes up to `end`."""

    id: bytes
    end: int
    content: bytes  # the hash of a leaf's chunk; b"" for a branch
    children: tuple[_Node, _Node] | None = None


def chunked(data: bytes) -> tuple[bytes, tuple[Chunk, ...]]:
    """Split data into chunks, and return the root of their tree and the chunks.

    Without data the root is b"" and there is no chunk.
    """
    if not data:
        return b"", ()
    ranges = chunk_ranges(len(data))
    root = _build_tree([_leaf(data[start:end], end) for start, end in ranges])
    chunks: list[Chunk] = []
    for (start, end), path in zip(ranges, _paths(root, b""), strict=True):
        if end > start:  # the empty last leaf is no chunk
            chunks.append(Chunk(data=data[start:end], start=start, path=path))
    return root.id, tuple(chunks)


def chunk_ranges(size: int) -> list[tuple[int, int]]:
    """Return where the chunks of `size` bytes start and end, an empty last one included."""
    ranges: list[tuple[int, int]] = []
    start = 0
    while size - start >= MAX_CHUNK:
        remaining = size - start
        last_would_be_small = 0 < remaining - MAX_CHUNK < MIN_CHUNK
        chunk_size = (remaining + 1) // 2 if last_would_be_small else MAX_CHUNK
        ranges.append((start, start + chunk_size))
        start += chunk_size
    return [*ranges, (start, size)]


def proven_range(root: bytes, size: int, offset: int, path: bytes, chunk: bytes) -> tuple[int, int]:
    """Verify the proof of a chunk; return where the chunk starts and ends in the data.

    `root` is the data root and `size` the length of the data, both of the signed transaction.  The
    proof `path` must lead from the root to the leaf at byte `offset`, and that leaf must be
    `chunk`.  Raises StateCorrupt.
    """
    if not 0 <= offset < size or not _LEAF <= len(path) <= MAX_PATH:
        raise StateCorrupt("the proof is not one for this data")

    expected_id = root
    start = 0
    end = size
    while len(path) > _LEAF:
        left_id = path[:_HASH]
        right_id = path[_HASH : 2 * _HASH]
        split_bytes = path[2 * _HASH : _BRANCH]
        path = path[_BRANCH:]
        if _digest(left_id, right_id, split_bytes) != expected_id:
            raise StateCorrupt("a branch of the proof does not lead to the data root")
        # The left child has the bytes before the split; each branch narrows the range.
        split = int.from_bytes(split_bytes, "big")
        if offset < split:
            expected_id = left_id
            end = min(end, split)
        else:
            expected_id = right_id
            start = max(start, split)

    chunk_hash = path[:_HASH]
    end_bytes = path[_HASH:]
    if _digest(chunk_hash, end_bytes) != expected_id:
        raise StateCorrupt("the proof is one of another chunk")
    if hashlib.sha256(chunk).digest() != chunk_hash:
        raise StateCorrupt("the proof is one of another chunk")
    # A forged branch could name any split, so the leaf's own end has to agree with the range.
    if int.from_bytes(end_bytes, "big") != end or end - start != len(chunk):
        raise StateCorrupt("the chunk does not fit its place")
    if len(chunk) > MAX_CHUNK:
        raise StateCorrupt("the chunk does not fit its place")
    return start, end


def _build_tree(layer: list[_Node]) -> _Node:
    """Return the root over leaves: nodes are joined in pairs, layer by layer.

    The last node of an odd layer moves up without a partner.
    """
    while len(layer) > 1:
        next_layer = [
            _branch(layer[position], layer[position + 1])
            for position in range(0, len(layer) - 1, 2)
        ]
        if len(layer) % 2:
            next_layer.append(layer[-1])
        layer = next_layer
    return layer[0]


def _leaf(data: bytes, end: int) -> _Node:
    chunk_hash = hashlib.sha256(data).digest()
    return _Node(id=_digest(chunk_hash, _number_bytes(end)), end=end, content=chunk_hash)


def _branch(left: _Node, right: _Node) -> _Node:
    branch_id = _digest(left.id, right.id, _number_bytes(left.end))
    return _Node(id=branch_id, end=right.end, content=b"", children=(left, right))


def _paths(node: _Node, path_to_node: bytes) -> Iterator[bytes]:
    """Yield the proof of each leaf below a node, from left to right."""
    if not node.children:
        yield path_to_node + node.content + _number_bytes(node.end)
        return
    left, right = node.children
    path_to_children = path_to_node + left.id + right.id + _number_bytes(left.end)
    yield from _paths(left, path_to_children)
    yield from _paths(right, path_to_children)


def _digest(*parts: bytes) -> bytes:
    """Return the hash of a node: sha256 over the sha256 of each part."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def _number_bytes(number: int) -> bytes:
    return number.to_bytes(_HASH, "big")
