"""Snapshots: the state of a file at one moment, so that a restore need not read every event.

A snapshot holds every record, how far each stream had come, and the state of the runs that have
not ended.  Runs that have ended are in it only by their records.  Their events stay on Arweave,
and are read back when somebody asks for such a run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from agentkit.errors import StateCorrupt
from agentkit.journal import records as r
from agentkit.journal.events import NODE, WALLET
from agentkit.journal.integrity import read_records
from agentkit.journal.produced import Produced
from agentkit.journal.rows import Base, genesis
from agentkit.journal.run_state import RunState
from agentkit.journal.transaction import JournalTransaction

ALL = ""
"""The name of the base that holds all records; no stream has this name."""

MOST_BLOBS = 32 * 1024 * 1024
"""Bytes of blobs in a snapshot, at most; further ones are read back from segments."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a file at one moment.

    `heads` are number and hash of each stream's newest event, `records` (kind, JSON) pairs, `runs`
    the JSON of each open run's state, `blobs` the small artifacts that these runs and effects name.
    """

    heads: Mapping[str, tuple[int, bytes]]
    records: tuple[tuple[str, str], ...] = field(repr=False)
    runs: Mapping[str, str] = field(repr=False)
    blobs: Mapping[str, bytes] = field(repr=False)

    @property
    def count(self) -> int:
        """How many events it stands for."""
        return sum(seq for seq, _ in self.heads.values())

    @cached_property
    def head(self) -> bytes:
        """One hash over the heads of all streams."""
        heads = [[stream, seq, digest.hex()] for stream, (seq, digest) in self.heads.items()]
        return hashlib.sha256(json.dumps(sorted(heads)).encode()).digest()


def open_runs(tx: JournalTransaction) -> list[str]:
    """Return the runs that have not ended."""
    return [run.run for run in tx.every(r.Run) if run.state in ("running", "paused")]


def weight(tx: JournalTransaction) -> int:
    """Return about how many bytes a snapshot would have, without taking it."""
    return tx.text_size(open_runs(tx))


def take(tx: JournalTransaction) -> Snapshot:
    """Return a snapshot of now; raises RunNotFound if events of an open run are not here."""
    states = {run: RunState.of(run, tx.history(run)) for run in open_runs(tx)}
    return Snapshot(
        {stream: tx.head(stream) for stream in tx.streams()},
        tuple((row.kind, row.body) for row in tx.all_records()),
        {run: state.encode() for run, state in states.items()},
        _blobs(tx, [*_outputs(states), *_results(tx)]),
    )


def put(tx: JournalTransaction, snapshot: Snapshot) -> None:
    """Write a snapshot into an empty state file; raises StateCorrupt if it cannot be read."""
    try:
        records = read_records(json.dumps(snapshot.records))
        for run, state in snapshot.runs.items():
            RunState.read(run, state)
    except ValueError as error:
        raise StateCorrupt(f"the snapshot cannot be read: {error}") from error
    tx.put_base(Base(ALL, snapshot.count, snapshot.head, json.dumps(snapshot.records)))
    for stream, (seq, digest) in snapshot.heads.items():
        tx.put_base(Base(stream, seq, digest, snapshot.runs.get(stream, "")))
    for record in records:
        tx.put(record)
    tx.put_blobs(snapshot.blobs)


def check(snapshot: Snapshot) -> None:
    """Check that the heads and runs are possible, without reading records; raises ValueError."""
    for stream, (seq, digest) in snapshot.heads.items():
        if not stream or not 0 < seq < 2**63 or len(digest) != 32 or digest == genesis(stream):
            raise ValueError(f"stream {stream!r} cannot stand at event {seq}")
    if set(snapshot.runs) - (set(snapshot.heads) - {WALLET, NODE}):
        raise ValueError("it tells of a run that has no events")


def _outputs(states: Mapping[str, RunState]) -> list[Produced]:
    """Return the artifacts that the open runs may still read."""
    return [produced for state in states.values() for produced in state.produced]


def _results(tx: JournalTransaction) -> list[Produced]:
    """Return the results of effects, the newest first: those are asked for again soonest."""
    effects = sorted(tx.every(r.Effect), key=lambda effect: effect.at, reverse=True)
    return [effect.result for effect in effects if effect.result]


def _blobs(tx: JournalTransaction, artifacts: Iterable[Produced]) -> dict[str, bytes]:
    """Return the bytes of small artifacts, the first of them where not all have room."""
    blobs: dict[str, bytes] = {}
    room = MOST_BLOBS
    for produced in artifacts:
        data = _blob(tx, produced)
        if data is not None and len(data) <= room:
            blobs[produced.digest] = data
            room -= len(data)
    return blobs


def _blob(tx: JournalTransaction, produced: Produced) -> bytes | None:
    """Return the blob of an artifact, None if its bytes are in its event or not in this file."""
    return tx.get_blob(produced.digest) if produced.text is None else None
