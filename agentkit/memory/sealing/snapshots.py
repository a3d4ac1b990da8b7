"""Snapshots on Arweave: when one is due, how it is sealed, what is read back.

One is looked at every 1,000 events or 5 MB of segments, and posted if the segments since the last
one outweigh it four times: a state that is as large as its log is read from the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentkit.errors import RunNotFound, StateCorrupt
from agentkit.journal import snapshot as moments
from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.journal.snapshot import Snapshot
from agentkit.journal.store import SCHEMA_VERSION
from agentkit.journal.transaction import JournalTransaction
from agentkit.memory.arweave.ans104 import Item
from agentkit.memory.arweave.tags import Tags
from agentkit.memory.sealing.sealer import Sealer
from agentkit.memory.sealing.segments import (
    OURS,
    UNREADABLE,
    close,
    opaque,
    opened,
    read_blobs,
    written_blobs,
)

SNAPSHOTS = "snapshots"
"""What the outbox calls them, where segments have the name of their stream."""

KIND = ("Kind", "snapshot")
EVERY_EVENTS = 1_000
EVERY_BYTES = 5 * 1024 * 1024
OUTWEIGHED = 4

FIRST_SCHEMA = 3
"""The schema of snapshots that do not say theirs: state files had no snapshots before it."""

OLDEST_SCHEMA = 3
"""The oldest schema whose records mean what they mean today.

An older snapshot is passed over, and the events that it stands for are read and folded instead.
Whoever changes what a record means raises this with SCHEMA_VERSION.
"""

PACKED = 0.3
"""What is left of a document once it is packed, about."""


def seal_due(tx: JournalTransaction, signer: Sealer, new: int) -> None:
    """Put a snapshot into the outbox if one is due; `new` events have just been sealed.

    Nothing is done unless every event stands in a segment.
    """
    heads = {stream: tx.head(stream)[0] for stream in tx.streams()}
    count, (last, at) = sum(heads.values()), tx.outbox.newest_of(SNAPSHOTS)
    since = tx.outbox.bytes_since(at, without=SNAPSHOTS)
    crossed = (count - last) // EVERY_EVENTS > (count - new - last) // EVERY_EVENTS
    if not (crossed or since >= EVERY_BYTES):
        return
    if any(tx.last_sealed(name) != seq for name, seq in heads.items()):
        return
    if since < OUTWEIGHED * PACKED * moments.weight(tx):
        return
    try:
        item = seal(signer, moments.take(tx))
    except (RunNotFound, StateCorrupt):  # an open run is not all here, or it is too large
        return
    if since >= OUTWEIGHED * len(item.raw):
        at = int(tx.now * 1e6)
        raw = item.raw
        tx.outbox.put(
            OutgoingSegment(item.id, SNAPSHOTS, count, count, raw, "sealed", at, moved=at)
        )


def seal(signer: Sealer, snapshot: Snapshot) -> Item:
    """Return the signed item of a snapshot; raises StateCorrupt when it is too large."""
    heads = {stream: [seq, head.hex()] for stream, (seq, head) in snapshot.heads.items()}
    document = {
        "schema": SCHEMA_VERSION,
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
    except UNREADABLE as error:
        raise StateCorrupt(f"snapshot {item.id} cannot be read: {error}") from error
    if not set(_tags(signer, snapshot)) <= set(item.tags):
        raise StateCorrupt(f"snapshot {item.id} is another than its tags say")
    return snapshot


def _read(document: Mapping[str, Any]) -> Snapshot:
    """Return a snapshot from its document; raises ValueError for schemas that cannot be read."""
    schema = int(document.get("schema", FIRST_SCHEMA))
    if schema > SCHEMA_VERSION:
        raise ValueError(f"a newer version of agentkit sealed it, with schema {schema}")
    if schema < OLDEST_SCHEMA:
        raise ValueError(f"its records are of schema {schema}, and are folded from events instead")
    heads = {str(name): (int(n), bytes.fromhex(h)) for name, (n, h) in document["heads"].items()}
    records = tuple((str(kind), str(body)) for kind, body in document["records"])
    runs = {str(name): str(state) for name, state in document["runs"].items()}
    return Snapshot(heads, records, runs, read_blobs(document["blobs"]))


def _tags(signer: Sealer, snapshot: Snapshot) -> Tags:
    """Return the tags by which a restore finds the snapshot."""
    return (
        *OURS,
        KIND,
        ("Content-Type", "application/octet-stream"),
        ("Run", opaque(signer, SNAPSHOTS)),
        ("Seq-First", str(snapshot.count)),
        ("Seq-Last", str(snapshot.count)),
        ("Head", snapshot.head.hex()),
    )
