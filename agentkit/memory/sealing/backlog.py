"""Puts events that are in no segment yet into signed segments, and says when that is due."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.journal.rows import Row
from agentkit.journal.transaction import JournalTransaction
from agentkit.market.anchor import PURPOSE
from agentkit.memory.sealer import Sealer
from agentkit.memory.sealing import snapshots
from agentkit.memory.sealing.segments import Segment, seal

MOST_EVENTS = 100
MOST_BYTES = 96 * 1024
"""The largest sealed item, in bytes; upload services take items of about that size for free."""
MOST_SECONDS = 60.0

EVENT_COMPRESSION = 4
"""How many times smaller events become in an item, roughly; a segment too large is cut in two."""

BLOB_COMPRESSION = 2
"""How many times smaller small artifacts become in an item, roughly."""

QUIET = frozenset(
    {
        "UploadSigned",
        "UploadDropped",
        "AuthorizationSigned",
        "AuthorizationEnded",
        "Held",
        "Reserved",
        "Unreserved",
        "Spent",
        "HoldReleased",
    }
)
"""Events that an upload and its payment write.

If they were a reason to seal, every upload would cause the next one, for ever.  So they wait for
another event and are sealed together with it.
"""


def is_quiet(row: Row) -> bool:
    """Whether an event is no reason to seal: it is from an upload or from anchoring a head."""
    is_anchoring = row.kind in ("TxSigned", "TxFinal") and f'"intent":"{PURPOSE}:' in row.body
    return is_anchoring or row.kind in QUIET


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many events are in no segment, and when the oldest was written (microseconds)."""

    events: int
    oldest: int | None


def backlog(tx: JournalTransaction) -> Backlog:
    """Return how many events wait to be sealed, and since when."""
    unsealed = _unsealed_streams(tx)
    events = sum(tx.head(stream)[0] - sealed_seq for stream, sealed_seq in unsealed)
    first_times = [
        row.at for stream, sealed_seq in unsealed for row in tx.rows(stream, sealed_seq, 1)
    ]
    return Backlog(events, min(first_times, default=None))


def is_due(tx: JournalTransaction) -> bool:
    """Whether some stream has enough unsealed events, or one that is old enough."""
    for stream, sealed_seq in _unsealed_streams(tx):
        rows = list(tx.rows(stream, sealed_seq, MOST_EVENTS))
        oldest_age = tx.now - rows[0].at / 1e6
        # An event in the future means that the clock was set back; do not wait for that long.
        if not 0 <= oldest_age <= MOST_SECONDS:
            return True
        if len(rows) == MOST_EVENTS:
            return True
        if sum(_estimated_size(tx, row) for row in rows) > MOST_BYTES:
            return True
    return False


def seal_all(tx: JournalTransaction, signer: Sealer) -> int:
    """Put every unsealed event into a signed segment in the outbox; return how many segments.

    A snapshot follows them if one is due.  Segments are signed inside the transaction, so that
    the bytes that were signed once are the only ones that are ever sent.
    """
    segment_count = 0
    event_count = 0
    for stream, sealed_seq in _unsealed_streams(tx):
        for segment in _segments(tx, stream, sealed_seq):
            for outgoing in _outgoing(tx, signer, segment):
                tx.outbox.put(outgoing)
                segment_count += 1
                event_count += outgoing.events
    if segment_count:
        snapshots.seal_due(tx, signer, event_count)
    return segment_count


def _unsealed_streams(tx: JournalTransaction) -> list[tuple[str, int]]:
    """Return each stream with unsealed events, and the number of its last sealed event.

    If every unsealed event is quiet, there is nothing to seal.
    """
    unsealed = tx.outbox.unsealed()
    for stream, sealed_seq in unsealed:
        for row in tx.rows(stream, sealed_seq):
            if not is_quiet(row):
                return unsealed
    return []


def _segments(tx: JournalTransaction, stream: str, sealed_seq: int) -> Iterator[Segment]:
    """Yield the events of a stream after `sealed_seq`, cut into segments of bounded size."""
    before = tx.hash_at(stream, sealed_seq)
    rows: list[Row] = []
    size = 0
    for row in list(tx.rows(stream, sealed_seq)):
        row_size = _estimated_size(tx, row)
        if rows and (len(rows) == MOST_EVENTS or size + row_size > MOST_BYTES):
            yield _make_segment(tx, stream, rows, before=before)
            before = rows[-1].hash
            rows = []
            size = 0
        rows.append(row)
        size += row_size
    if rows:
        yield _make_segment(tx, stream, rows, before=before)


def _outgoing(
    tx: JournalTransaction, signer: Sealer, segment: Segment
) -> Iterator[OutgoingSegment]:
    """Yield the signed items of a segment: one, or several if it compresses badly."""
    item = seal(signer, segment)
    if len(item.raw) > MOST_BYTES and len(segment.rows) > 1:
        # The size was only estimated.  Two halves are two segments of the chain.
        middle = len(segment.rows) // 2
        stream = segment.stream
        first_rows = segment.rows[:middle]
        second_rows = segment.rows[middle:]
        first = _make_segment(tx, stream, first_rows, before=segment.before)
        second = _make_segment(tx, stream, second_rows, before=first.head)
        yield from _outgoing(tx, signer, first)
        yield from _outgoing(tx, signer, second)
        return

    now = int(tx.now * 1e6)
    yield OutgoingSegment(
        item=item.id,
        stream=segment.stream,
        first=segment.first,
        last=segment.last,
        raw=item.raw,
        state="sealed",
        at=now,
        moved=now,
    )


def _make_segment(
    tx: JournalTransaction, stream: str, rows: Sequence[Row], *, before: bytes
) -> Segment:
    """Return a segment of consecutive events; `before` is the hash before the first of them."""
    return Segment(
        stream=stream,
        rows=tuple(rows),
        before=before,
        head=rows[-1].hash,
        blobs=_blobs(tx, rows),
        instance=tx.instance,
    )


def _blobs(tx: JournalTransaction, rows: Sequence[Row]) -> dict[str, bytes]:
    """Return the small artifacts that events name, by digest, as far as they are stored."""
    blobs: dict[str, bytes] = {}
    for row in rows:
        for digest in artifact_digests_in(row):
            data = tx.get_blob(digest)
            if data is not None:
                blobs[digest] = data
    return blobs


def _estimated_size(tx: JournalTransaction, row: Row) -> int:
    """Return about how many bytes an event takes in a sealed item, its artifacts included."""
    blob_size = sum(len(data) for data in _blobs(tx, (row,)).values())
    return len(row.body) // EVENT_COMPRESSION + blob_size // BLOB_COMPRESSION


def artifact_digests_in(row: Row) -> list[str]:
    """Return the digests of the artifacts that an event names without containing their text."""
    return [str(named["digest"]) for named in _artifacts_in(row) if "text" not in named]


def _artifacts_in(row: Row) -> list[Any]:
    """Return the artifacts that an event names, as they stand in its JSON."""
    if row.kind not in ("NodeDone", "NodesEnded", "ItemDone", "JobEnded", "EffectEnded"):
        return []
    body = json.loads(row.body)
    if row.kind == "EffectEnded":
        return [body["result"]] if body.get("result") else []
    ends = body.get("done", ()) if row.kind == "NodesEnded" else (body,)
    return [output for end in ends for output in end.get("outputs", ())]
