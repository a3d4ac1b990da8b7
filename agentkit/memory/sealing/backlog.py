"""Sealing: what of the journal is in no segment yet, when that is due, and the segments of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from agentkit.journal.outbox_tables import OutgoingSegment
from agentkit.journal.rows import Row
from agentkit.journal.transaction import JournalTransaction
from agentkit.market.anchor import PURPOSE
from agentkit.memory.sealing import snapshots
from agentkit.memory.sealing.sealer import Sealer
from agentkit.memory.sealing.segments import Segment, seal

MOST_EVENTS = 100
MOST_BYTES = 96 * 1024
"""Of a sealed item: what upload services take for nothing, as far as they take anything so."""
MOST_SECONDS = 60.0
_PACKED, _PACKED_BLOBS = 4, 2
"""How much smaller events and artifacts become, at a guess: what comes out too large is cut."""

QUIET = frozenset(
    {
        *("UploadSigned", "UploadDropped", "AuthorizationSigned", "AuthorizationEnded"),
        *("Held", "Reserved", "Unreserved", "Spent", "HoldReleased"),
    }
)
"""What uploads write down themselves.  Alone it is no reason for another one, or there would be
no end; with the wallet's other money it is sealed by what that money was for."""


def is_quiet(row: Row) -> bool:
    """Whether an event is no reason to seal: of uploads, or of the head anchor's transactions."""
    anchors = row.kind in ("TxSigned", "TxFinal") and f'"intent":"{PURPOSE}:' in row.body
    return anchors or row.kind in QUIET


@dataclass(frozen=True, slots=True)
class Backlog:
    """Events that are in no segment: how many, and when the oldest was written (microseconds)."""

    events: int
    oldest: int | None


def backlog(tx: JournalTransaction) -> Backlog:
    """Return what is to be sealed."""
    waiting = _waiting(tx)
    events = sum(tx.head(stream)[0] - after for stream, after in waiting)
    firsts = [row.at for stream, after in waiting for row in tx.rows(stream, after, 1)]
    return Backlog(events, min(firsts, default=None))


def is_due(tx: JournalTransaction) -> bool:
    """Whether enough has gathered, or the oldest of it is old enough."""
    for stream, after in _waiting(tx):
        rows = list(tx.rows(stream, after, MOST_EVENTS))
        # Written in the future: the clock went back, and would have it wait for as long again.
        old = not 0 <= tx.now - rows[0].at / 1e6 <= MOST_SECONDS
        if old or len(rows) == MOST_EVENTS or sum(_weight(tx, row) for row in rows) > MOST_BYTES:
            return True
    return False


def seal_all(tx: JournalTransaction, signer: Sealer) -> int:
    """Put every event into a segment, signed bytes and all; returns how many segments.

    And a snapshot after them, where one is due.
    """
    count = events = 0
    for stream, after in _waiting(tx):
        for segment in _segments(tx, stream, after):
            for outgoing in _sealed(tx, signer, segment):
                tx.outbox.put(outgoing)
                count, events = count + 1, events + outgoing.last - outgoing.first + 1
    if count:
        snapshots.seal_due(tx, signer, events)
    return count


def _waiting(tx: JournalTransaction) -> list[tuple[str, int]]:
    """Return the streams to seal and after which event, none when all of it is quiet."""
    unsealed = tx.outbox.unsealed()
    rows = (row for stream, after in unsealed for row in tx.rows(stream, after))
    return unsealed if any(not is_quiet(row) for row in rows) else []


def _segments(tx: JournalTransaction, stream: str, after: int) -> Iterator[Segment]:
    """Yield the unsealed events of a stream in stretches of bounded size."""
    before = tx.hash_at(stream, after)
    gathered: list[Row] = []
    size = 0
    for row in list(tx.rows(stream, after)):
        weight = _weight(tx, row)
        if gathered and (len(gathered) == MOST_EVENTS or size + weight > MOST_BYTES):
            yield _segment(tx, stream, gathered, before)
            before = gathered[-1].hash
            gathered = []
            size = 0
        gathered.append(row)
        size += weight
    if gathered:
        yield _segment(tx, stream, gathered, before)


def _sealed(tx: JournalTransaction, signer: Sealer, segment: Segment) -> Iterator[OutgoingSegment]:
    """Yield a segment's items: one, or more when it does not pack as well as most."""
    item = seal(signer, segment)
    if len(item.raw) > MOST_BYTES and len(segment.rows) > 1:
        middle = len(segment.rows) // 2
        first, second = segment.rows[:middle], segment.rows[middle:]
        yield from _sealed(tx, signer, _segment(tx, segment.stream, first, segment.before))
        yield from _sealed(tx, signer, _segment(tx, segment.stream, second, first[-1].hash))
        return
    now = int(tx.now * 1e6)
    place = (segment.stream, segment.first, segment.last)
    yield OutgoingSegment(item.id, *place, item.raw, "sealed", now, moved=now)


def _segment(
    tx: JournalTransaction, stream: str, rows: list[Row] | tuple[Row, ...], before: bytes
) -> Segment:
    return Segment(stream, tuple(rows), before, rows[-1].hash, _blobs(tx, rows), tx.instance)


def _blobs(tx: JournalTransaction, rows: list[Row] | tuple[Row, ...]) -> dict[str, bytes]:
    found = {digest: tx.get_blob(digest) for row in rows for digest in named_in(row)}
    return {digest: data for digest, data in found.items() if data is not None}


def _weight(tx: JournalTransaction, row: Row) -> int:
    """Return about how many bytes an event takes up in a sealed item, its artifacts included."""
    blobs = sum(len(data) for data in _blobs(tx, (row,)).values())
    return len(row.body) // _PACKED + blobs // _PACKED_BLOBS


def named_in(row: Row) -> list[str]:
    """Return the digests of the artifacts that an event names and does not hold."""
    if row.kind not in ("NodeDone", "NodesEnded", "ItemDone", "JobEnded"):
        return []
    body = json.loads(row.body)
    parts = body.get("done", ()) if row.kind == "NodesEnded" else (body,)
    outputs = [output for part in parts for output in part.get("outputs", ())]
    return [str(output["digest"]) for output in outputs if "text" not in output]
