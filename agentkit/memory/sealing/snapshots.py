"""Snapshots on Arweave: the state after all events so far, which makes a restore short.

Every 1,000 events, or every 5 MB of segments, it is checked whether a snapshot is due.  One is
posted if the segments since the last one are four times as large as it.  Otherwise reading those
segments costs no more than reading the snapshot would.
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
from agentkit.memory.sealer import Sealer
from agentkit.memory.sealing.segments import (
    OURS,
    UNREADABLE,
    open_document,
    public_stream_name,
    read_blobs,
    seal_document,
    written_blobs,
)

SNAPSHOTS = "snapshots"
"""Stands in the outbox in place of a stream's name."""

KIND = ("Kind", "snapshot")
EVERY_EVENTS = 1_000
EVERY_BYTES = 5 * 1024 * 1024
OUTWEIGHED = 4

FIRST_SCHEMA = 3
"""The schema of snapshots that do not name one: the first schema that had snapshots."""

OLDEST_SCHEMA = 3
"""The oldest schema whose records still have today's meaning.

An older snapshot is skipped, and the events that it covers are read and folded instead.  A change
of what a record means has to raise this together with SCHEMA_VERSION.
"""

PACKED = 0.3
"""The size of a compressed document as a share of its original size, roughly."""


def seal_due(tx: JournalTransaction, signer: Sealer, new: int) -> None:
    """Put a snapshot into the outbox if one is due; `new` events have just been sealed."""
    last_seqs = {stream: tx.head(stream)[0] for stream in tx.streams()}
    event_count = sum(last_seqs.values())
    snapshot_count, snapshot_at = tx.outbox.newest_of(SNAPSHOTS)
    segment_bytes = tx.outbox.bytes_since(snapshot_at, without=SNAPSHOTS)

    events_since = event_count - snapshot_count
    crossed = events_since // EVERY_EVENTS > (events_since - new) // EVERY_EVENTS
    if not crossed and segment_bytes < EVERY_BYTES:
        return
    # A snapshot of an unsealed event could not be checked against the chain of segments.
    if any(tx.last_sealed(stream) != seq for stream, seq in last_seqs.items()):
        return
    # A cheap estimate first: to take a snapshot reads the whole state.
    if segment_bytes < OUTWEIGHED * PACKED * moments.weight(tx):
        return

    try:
        item = seal(signer, moments.take(tx))
    except (RunNotFound, StateCorrupt):  # an open run is incomplete here, or it is too large
        return
    if segment_bytes >= OUTWEIGHED * len(item.raw):
        now = int(tx.now * 1e6)
        snapshot = OutgoingSegment(
            item=item.id,
            stream=SNAPSHOTS,
            first=event_count,
            last=event_count,
            raw=item.raw,
            state="sealed",
            at=now,
            moved=now,
        )
        tx.outbox.put(snapshot)


def seal(signer: Sealer, snapshot: Snapshot) -> Item:
    """Return the signed item of a snapshot; raises StateCorrupt if it is too large."""
    heads = {stream: [seq, head.hex()] for stream, (seq, head) in snapshot.heads.items()}
    document = {
        "schema": SCHEMA_VERSION,
        "heads": heads,
        "records": snapshot.records,
        "runs": dict(snapshot.runs),
        "blobs": written_blobs(snapshot.blobs),
    }
    return seal_document(signer, document, _tags(signer, snapshot))


def unseal(signer: Sealer, item: Item) -> Snapshot:
    """Return the snapshot of a verified item; raises WrongKey, StateCorrupt."""
    document = open_document(signer, item)
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
    heads = {
        str(stream): (int(seq), bytes.fromhex(digest))
        for stream, (seq, digest) in document["heads"].items()
    }
    records = tuple((str(kind), str(body)) for kind, body in document["records"])
    runs = {str(run): str(state) for run, state in document["runs"].items()}
    return Snapshot(heads=heads, records=records, runs=runs, blobs=read_blobs(document["blobs"]))


def _tags(signer: Sealer, snapshot: Snapshot) -> Tags:
    """Return the tags by which a restore finds the snapshot."""
    return (
        *OURS,
        KIND,
        ("Content-Type", "application/octet-stream"),
        ("Run", public_stream_name(signer, SNAPSHOTS)),
        ("Seq-First", str(snapshot.count)),
        ("Seq-Last", str(snapshot.count)),
        ("Head", snapshot.head.hex()),
    )
