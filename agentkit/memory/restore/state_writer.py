"""Writes a restored wallet into a state file, and compares the two."""

from __future__ import annotations

import gc
from collections.abc import Iterable

from agentkit.errors import RunNotFound, StateCorrupt, StateError
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal import snapshot as moments
from agentkit.journal.fold import fold
from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.journal.transaction import JournalTransaction
from agentkit.memory.arweave.ans104 import Item
from agentkit.memory.restore.restored_wallet import RestoredWallet
from agentkit.memory.sealing import snapshots
from agentkit.memory.sealing.segment_chain import (
    SealedSegment,
)


def write_without_gc(tx: JournalTransaction, restored: RestoredWallet) -> None:
    """Write a restored wallet with Python's garbage collector switched off.

    Writing creates many objects and no reference cycles.  The collector would scan them again and
    again: without it a restore takes a quarter of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        _write(tx, restored)
        tx.flush()
    finally:
        if was_enabled:
            gc.enable()


def _write(tx: JournalTransaction, restored: RestoredWallet) -> None:
    """Write a restored wallet into an empty state file; raises StateError if it is not empty."""
    if tx.streams():
        raise StateError(
            "this wallet already has state here",
            hint="move its folder away, or set AGENTKIT_HOME to an empty one",
        )
    if restored.snapshot and restored.snapshot_item:
        moments.put(tx, restored.snapshot)
        _put_snapshot(tx, restored.snapshot_item, count=restored.earlier)
    for stream, parts in restored.streams.items():
        for part in parts:
            _write_segment(tx, stream, part)

    # Epoch and instance tell the events that follow from those of the state file that was lost.
    last = tx.get(r.Restoration, "newest")
    event = e.Restored(
        events=restored.events,
        epoch=(last.epoch if last else 0) + 1,
        instance=tx.instance,
        anchor=restored.anchored,
    )
    tx.append(e.WALLET, event)


def _put_snapshot(tx: JournalTransaction, item: Item, *, count: int) -> None:
    """Record in the outbox that a snapshot of `count` events is on Arweave."""
    now = int(tx.now * 1e6)
    tx.outbox.put(
        OutgoingSegment(
            item=item.id,
            stream=snapshots.SNAPSHOTS,
            first=count,
            last=count,
            raw=item.raw,
            state="accepted",
            at=now,
            moved=now,
        )
    )


def _write_segment(tx: JournalTransaction, stream: str, part: SealedSegment) -> None:
    """Write the events of a segment, fold them, and record that it is on Arweave."""
    segment = part.segment
    tx.put_blobs(segment.blobs)
    tx.insert_all(segment.rows)
    for row in segment.rows:
        try:
            fold(row.event(), stream, row.at / 1e6, tx)
        except ValueError as error:
            raise StateCorrupt(f"{row.name} cannot be read: {error}") from error
    _put_segment(tx, stream, part)


def _put_segment(tx: JournalTransaction, stream: str, part: SealedSegment) -> None:
    """Record in the outbox that a segment is on Arweave."""
    segment = part.segment
    at = segment.rows[-1].at
    tx.outbox.put(
        OutgoingSegment(
            item=part.item.id,
            stream=stream,
            first=segment.first,
            last=segment.last,
            raw=part.item.raw,
            state="mined" if part.height is not None else "accepted",
            at=at,
            carrier=part.carrier,
            moved=at,
        )
    )


def write_earlier_events(tx: JournalTransaction, restored: RestoredWallet, stream: str) -> int:
    """Write the events of a stream that the local snapshot covers; returns how many.

    Returns 0 if they are here already.  They are not folded: the snapshot contains the result.
    """
    base = tx.base(stream)
    if base is None or not tx.start(stream)[0]:
        return 0
    rows = restored.rows(stream)[: base.seq]
    if not rows:
        raise RunNotFound(f"no gateway has any step of {stream}")
    # The hash of the last event covers all events before it.
    if len(rows) < base.seq or rows[-1].hash != base.hash:
        raise StateCorrupt(f"the first {base.seq} steps of {stream} are not all on any gateway")
    tx.insert_all(rows)
    tx.flush()
    tx.forget()
    for part in restored.streams[stream]:
        tx.put_blobs(part.segment.blobs)
        if part.segment.last <= base.seq:
            _put_segment(tx, stream, part)
    return len(rows)


def differences_in(tx: JournalTransaction, restored: RestoredWallet, stream: str) -> Iterable[str]:
    """Yield how a stream in the state file differs from the one on Arweave.

    Events are compared from where the local rows start, which is after a snapshot if there is one.
    """
    remote_rows = restored.rows(stream)
    start_seq, start_hash = tx.start(stream)
    if 0 < start_seq <= len(remote_rows):
        last_covered = remote_rows[start_seq - 1]
        if last_covered.hash != start_hash:
            yield f"{last_covered.name} is not the one that the snapshot here stands on"

    comparable = max(0, len(remote_rows) - start_seq)
    for local_row in tx.rows(stream, start_seq, comparable):
        remote_row = remote_rows[local_row.seq - 1]
        if local_row != remote_row:
            yield f"{remote_row.name} differs"
            break

    missing = len(remote_rows) - tx.head(stream)[0]
    if missing > 0:
        yield f"{stream}: {missing} events are missing here"
