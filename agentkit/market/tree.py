"""The Merkle tree over the deliveries paid on a channel, which grows by one leaf for each.

The tree and its hashes are those of RFC 6962, section 2.1 (SHA-256; a first byte tells leaves from
inner nodes).  `peaks` are the roots of its full subtrees from left to right, in hex: that is all
that has to be stored to add a leaf or to compute the root.
"""

from __future__ import annotations

import hashlib

Peaks = tuple[str, ...]

EMPTY = bytes(32)
"""The root in a voucher before anything was paid."""


def leaf_of(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\0" + data).digest()


def added(peaks: Peaks, leaves: int, leaf: bytes) -> Peaks:
    """Return the peaks of a tree of `leaves` leaves after `leaf` is added on the right.

    Adding works like adding 1 to a binary number: a one bit of `leaves` is a full subtree of that
    size, and each trailing one carries, that is, joins the new subtree.
    """
    remaining = list(peaks)
    top = leaf
    while leaves & 1:
        top = _inner(bytes.fromhex(remaining.pop()), top)
        leaves >>= 1
    return (*remaining, top.hex())


def root_of(peaks: Peaks) -> bytes:
    """Return the root over all leaves: the peaks joined from right to left."""
    if not peaks:
        return EMPTY
    *others, root = map(bytes.fromhex, peaks)
    for peak in reversed(others):
        root = _inner(peak, root)
    return root


def _inner(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\1" + left + right).digest()
