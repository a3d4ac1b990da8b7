"""What a state file has come to at one moment, for machines that go on from there.

Records are folds of events, so a snapshot holds every record, how far each stream had come, and
what the runs that have not ended had done.  Runs that have ended count in the records; their
events stay where they are sealed, and are read back when somebody asks for one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from agentkit.errors import StateCorrupt
from agentkit.journal import records as r
from agentkit.journal.events import NODE, WALLET
from agentkit.journal.integrity import read_records
from agentkit.journal.produced import Produced
from agentkit.journal.run_state import RunState
from agentkit.journal.store import Base, Tx, genesis

ALL = ""
"""Where the base of all records stands: no stream has this name."""

MOST_BLOBS = 32 * 1024 * 1024
"""Bytes of small artifacts in a snapshot; what is beyond them is read back from segments."""


@dataclass(frozen=True)
class Snapshot:
    """A moment: number and hash of each stream's newest event, the records, the open runs.

    `records` are (kind, JSON) pairs, `runs` the JSON of each open run's state, `blobs` the small
    artifacts that these runs name.
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


def open_runs(tx: Tx) -> list[str]:
    """Return the runs that have not ended."""
    return [run.run for run in tx.every(r.Run) if run.state in ("running", "paused")]


def weight(tx: Tx) -> int:
    """Return about how many bytes a snapshot would have, without taking it."""
    return tx.weight(open_runs(tx))


def take(tx: Tx) -> Snapshot:
    """Return the state file as it is now; raises RunNotFound when an open run is not all here."""
    states = {run: RunState.of(run, tx.history(run)) for run in open_runs(tx)}
    return Snapshot(
        {stream: tx.head(stream) for stream in tx.streams()},
        tuple(tx.all_records()),
        {run: state.encode() for run, state in states.items()},
        _blobs(tx, states),
    )


def put(tx: Tx, snapshot: Snapshot) -> None:
    """Write a snapshot into an empty state file; raises StateCorrupt for one that cannot be."""
    try:
        records = read_records(json.dumps(snapshot.records))
        for run, state in snapshot.runs.items():
            RunState.read(run, state)
    except ValueError as wrong:
        raise StateCorrupt(f"the snapshot cannot be read: {wrong}") from wrong
    tx.put_base(Base(ALL, snapshot.count, snapshot.head, json.dumps(snapshot.records)))
    for stream, (seq, digest) in snapshot.heads.items():
        tx.put_base(Base(stream, seq, digest, snapshot.runs.get(stream, "")))
    for record in records:
        tx.put(record)
    tx.keep_all(snapshot.blobs)


def check(snapshot: Snapshot) -> None:
    """Check what does not need reading the records; raises ValueError."""
    for stream, (seq, digest) in snapshot.heads.items():
        if not stream or not 0 < seq < 2**63 or len(digest) != 32 or digest == genesis(stream):
            raise ValueError(f"stream {stream!r} cannot stand at event {seq}")
    if set(snapshot.runs) - (set(snapshot.heads) - {WALLET, NODE}):
        raise ValueError("it tells of a run that has no events")


def _blobs(tx: Tx, states: Mapping[str, RunState]) -> dict[str, bytes]:
    """Return the small artifacts that the open runs may still read."""
    blobs: dict[str, bytes] = {}
    left = MOST_BLOBS
    for produced in (p for state in states.values() for p in state.produced):
        data = _kept(tx, produced)
        if data is not None and len(data) <= left:
            blobs[produced.digest] = data
            left -= len(data)
    return blobs


def _kept(tx: Tx, produced: Produced) -> bytes | None:
    return tx.kept(produced.digest) if produced.text is None else None
