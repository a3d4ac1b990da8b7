"""Snapshots on Arweave: when one is due, how it is sealed, what is read back.

One is due every 1,000 events or 5 MB of segments, and only once the segments since the last one
outweigh it twice: a state that grows as fast as its log would otherwise cost more than the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentkit.errors import RunNotFound, StateCorrupt
from agentkit.journal import snapshot as moments
from agentkit.journal.snapshot import Snapshot
from agentkit.journal.store import Outgoing, Tx
from agentkit.memory.ans104 import Item
from agentkit.memory.sealer import Sealer
from agentkit.memory.segments import (
    OURS,
    UNREADABLE,
    close,
    opaque,
    opened,
    read_blobs,
    written_blobs,
)
from agentkit.memory.tags import Tags

SNAPSHOTS = "snapshots"
"""What the outbox calls them, where segments have the name of their stream."""

KIND = ("Kind", "snapshot")
EVERY_EVENTS = 1_000
EVERY_BYTES = 5 * 1024 * 1024
OUTWEIGHED = 2


def seal_due(tx: Tx, signer: Sealer) -> None:
    """Put a snapshot into the outbox, if one is due and every event stands in a segment."""
    heads = {stream: tx.head(stream)[0] for stream in tx.streams()}
    count = sum(heads.values())
    if not _is_due(tx, count) or any(tx.last_sealed(name) != seq for name, seq in heads.items()):
        return
    try:
        item = seal(signer, moments.take(tx))
    except (RunNotFound, StateCorrupt):  # an open run is not all here, or it is too large
        return
    tx.put_outgoing(
        Outgoing(item.id, SNAPSHOTS, count, count, item.raw, "sealed", int(tx.now * 1e6))
    )


def _is_due(tx: Tx, count: int) -> bool:
    last, at, weight = tx.newest(SNAPSHOTS)
    since = tx.sealed_since(at, but=SNAPSHOTS)
    return (count - last >= EVERY_EVENTS or since >= EVERY_BYTES) and since >= OUTWEIGHED * weight


def seal(signer: Sealer, snapshot: Snapshot) -> Item:
    """Return the signed item of a snapshot; raises StateCorrupt when it is too large."""
    heads = {stream: [seq, head.hex()] for stream, (seq, head) in snapshot.heads.items()}
    document = {
        "heads": heads,
        "records": snapshot.records,
        "runs": dict(snapshot.runs),
        "blobs": written_blobs(snapshot.blobs),
    }
    return close(signer, document, _tags(signer, snapshot))


def unseal(signer: Sealer, item: Item) -> Snapshot:
    """Return the snapshot of a verified item; raises WrongKey, StateCorrupt."""
    document = opened(signer, item)
    try:
        snapshot = _read(document)
        moments.check(snapshot)
    except UNREADABLE as wrong:
        raise StateCorrupt(f"snapshot {item.id} cannot be read: {wrong}") from wrong
    if not set(_tags(signer, snapshot)) <= set(item.tags):
        raise StateCorrupt(f"snapshot {item.id} is another than its tags say")
    return snapshot


def _read(document: Mapping[str, Any]) -> Snapshot:
    heads = {str(name): (int(n), bytes.fromhex(h)) for name, (n, h) in document["heads"].items()}
    records = tuple((str(kind), str(body)) for kind, body in document["records"])
    runs = {str(name): str(state) for name, state in document["runs"].items()}
    return Snapshot(heads, records, runs, read_blobs(document["blobs"]))


def _tags(signer: Sealer, snapshot: Snapshot) -> Tags:
    return (
        *OURS,
        KIND,
        ("Content-Type", "application/octet-stream"),
        ("Run", opaque(signer, SNAPSHOTS)),
        ("Seq-First", str(snapshot.count)),
        ("Seq-Last", str(snapshot.count)),
        ("Head", snapshot.head.hex()),
    )
