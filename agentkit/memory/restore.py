"""Restoring an agent from Arweave with nothing but its key.

Every gateway is asked and the union of their answers taken; every item's id, owner, signature,
seal and place in its chain is checked.  Nothing is guessed, and nothing starts empty in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentkit.errors import RunNotFound, StateCorrupt, StateError, StateForked, WrongKey
from agentkit.journal import events as e
from agentkit.journal.fold import fold
from agentkit.journal.journal import Journal
from agentkit.journal.store import Outgoing, Row, Tx, genesis
from agentkit.keys.signer import Signer
from agentkit.memory.ans104 import Item
from agentkit.memory.b64 import name_of
from agentkit.memory.findings import Findings, Found
from agentkit.memory.gateways import Gateways
from agentkit.memory.segments import APP, Segment, unseal

AT_ONCE = 8


@dataclass(frozen=True)
class Sealed:
    """A segment with the item it came in."""

    item: Item
    segment: Segment
    height: int | None


@dataclass(frozen=True)
class Restored:
    """What was found: segments of every stream in order, and everything worth a warning."""

    streams: dict[str, tuple[Sealed, ...]]
    warnings: tuple[str, ...]

    @property
    def events(self) -> int:
        """How many events the segments hold."""
        return sum(len(s.segment.rows) for parts in self.streams.values() for s in parts)

    def rows(self, stream: str) -> list[Row]:
        """Return the rows of one stream."""
        return [row for part in self.streams.get(stream, ()) for row in part.segment.rows]


async def fetch(signer: Signer, gateways: Gateways) -> Restored:
    """Find, verify and open every segment of a key.

    Raises RunNotFound when no gateway has any, WrongKey, StateCorrupt, StateForked,
    StoreUnavailable.
    """
    owner = name_of(signer.public_key)
    findings = await gateways.find(owner, APP)
    if not findings.found:
        raise RunNotFound(
            f"no gateway has any agentkit state for address {owner} (key of {signer.address})",
            hint="check the keystore and memory.gateways; nothing was made or changed",
        )
    limit = asyncio.Semaphore(AT_ONCE)
    refused: list[StateError | WrongKey] = []

    async def one(found: Found) -> Sealed | None:
        try:
            async with limit:
                item = await gateways.item(found)
            return Sealed(item, await asyncio.to_thread(unseal, signer, item), found.height)
        except (StateCorrupt, WrongKey) as wrong:  # anybody can list junk under our public key
            refused.append(wrong)
            return None

    parts = await asyncio.gather(*(one(found) for found in findings.found))
    streams: dict[str, list[Sealed]] = {}
    for part in parts:
        if part:
            streams.setdefault(part.segment.stream, []).append(part)
    if not streams:
        raise refused[0]
    warnings = [*_about_gateways(findings), *(f"refused: {wrong}" for wrong in refused)]
    chained = {name: _chained(name, sealed, warnings) for name, sealed in streams.items()}
    return Restored({name: c for name, c in chained.items() if c}, tuple(warnings))


async def restore(restored: Restored, home: Path, address: str) -> Journal:
    """Write what was fetched into a new state file and return its open journal.

    Raises StateError when the wallet already has one with events in it.
    """
    journal = await Journal.open(home, address)
    try:
        await journal.commit(lambda tx: _write(tx, restored))
        await journal.check()
    except BaseException:
        await journal.close()
        raise
    return journal


async def compare(restored: Restored, journal: Journal) -> list[str]:
    """Return how a state file differs from what Arweave has of it; empty when they agree.

    Events that were never sealed are not a difference.
    """
    differences = []
    for stream in restored.streams:
        there = restored.rows(stream)
        here = await journal.rows(stream, 0, len(there))
        for mine, theirs in zip(here, there, strict=False):
            if mine != theirs:
                differences.append(f"{theirs.name} differs")
                break
        if len(here) < len(there):
            differences.append(f"{stream}: {len(there) - len(here)} events are missing here")
    return differences


# -- inside --------------------------------------------------------------------------------------


def _about_gateways(findings: Findings) -> list[str]:
    """Say which gateways failed or lag, in words for people."""
    told = [f"gateway {report.url} failed: {report.problem}" for report in findings.failed]
    known = len(findings.found)
    told += [
        f"gateway {report.url} is behind: {report.listed} of {known} segments"
        for report in findings.behind
    ]
    if len(findings.reports) == 1:
        told.append("only one gateway was asked: nobody corroborates that this is the newest state")
    return told


def _chained(stream: str, parts: Sequence[Sealed], warnings: list[str]) -> tuple[Sealed, ...]:
    """Return a stream's segments from its first event on, as far as they follow one another."""
    unique = {(p.segment.first, p.segment.before, p.segment.head): p for p in parts}
    by_start: dict[tuple[int, bytes], Sealed] = {}
    for part in sorted(unique.values(), key=lambda p: (p.height is None, p.height or 0)):
        start = (part.segment.first, part.segment.before)
        if start in by_start:
            raise StateForked(
                f"stream {stream!r} goes on in two ways after event {start[0] - 1}:"
                f" items {by_start[start].item.id} and {part.item.id}",
                hint="stop one of the two machines that use this key",
            )
        by_start[start] = part
    chain: list[Sealed] = []
    seq, head = 1, genesis(stream)
    while (seq, head) in by_start:
        part = by_start.pop((seq, head))
        chain.append(part)
        seq, head = part.segment.last + 1, part.segment.head
    if by_start:
        last = max(first for first, _ in by_start)
        warnings.append(f"events {seq} to {last - 1} of {stream!r} are missing on every gateway")
    return tuple(chain)


def _write(tx: Tx, restored: Restored) -> None:
    if tx.streams():
        raise StateError(
            "this wallet already has state here",
            hint="move its folder away, or set AGENTKIT_HOME to an empty one",
        )
    for stream, parts in restored.streams.items():
        for part in parts:
            _write_segment(tx, stream, part)
    tx.append(e.WALLET, e.Restored(events=restored.events))


def _write_segment(tx: Tx, stream: str, part: Sealed) -> None:
    segment = part.segment
    for data in segment.blobs.values():
        tx.keep(data)
    for row in segment.rows:
        tx.insert(row, row.hash)
        try:
            fold(row.event(), stream, row.at / 1e6, tx)
        except ValueError as wrong:
            raise StateCorrupt(f"{row.name} cannot be read: {wrong}") from wrong
    state = "mined" if part.height is not None else "accepted"
    item = part.item
    tx.put_outgoing(
        Outgoing(item.id, stream, segment.first, segment.last, item.raw, state, segment.rows[-1].at)
    )
