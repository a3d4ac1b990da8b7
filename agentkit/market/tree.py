"""The Merkle tree over what was paid on a channel, grown by one leaf for each task.

The tree and its hashes are those of RFC 6962, section 2.1 (SHA-256, leaves and inner nodes told
apart by a first byte).  `peaks` are the roots of its full subtrees from left to right, in hex: all
that has to be kept to add a leaf or to tell the root.
"""

from __future__ import annotations

import hashlib

Peaks = tuple[str, ...]

EMPTY = bytes(32)
"""What a voucher carries as root while nothing was paid."""


def leaf_of(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\0" + data).digest()


def added(peaks: Peaks, leaves: int, leaf: bytes) -> Peaks:
    """Return the peaks of a tree of `leaves` leaves once `leaf` is added on the right."""
    kept, top = list(peaks), leaf
    while leaves & 1:  # a full subtree of the same size stands to the left
        top = _inner(bytes.fromhex(kept.pop()), top)
        leaves >>= 1
    return (*kept, top.hex())


def root_of(peaks: Peaks) -> bytes:
    """Return the root over all leaves."""
    if not peaks:
        return EMPTY
    *left, last = map(bytes.fromhex, peaks)
    for peak in reversed(left):
        last = _inner(peak, last)
    return last


def _inner(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
