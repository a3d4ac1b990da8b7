"""Whether another machine goes on with the same state.

Before the first purchase of a life and on each flush gateways are asked for segments of ours that
follow where we stand and are not what we wrote.  This detects, it cannot prevent: two machines
may each pay once in between.  Whoever finds another's segment stops.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from agentkit.errors import StateCorrupt, StateForked, WrongKey
from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.journal.transaction import JournalTransaction
from agentkit.memory.arweave.base64url import name_of
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.arweave.merged_results import MergedItem
from agentkit.memory.restore.remote_log import piece_of
from agentkit.memory.sealing.sealer import Sealer
from agentkit.memory.sealing.segment_chain import payments
from agentkit.memory.sealing.segments import APP, Segment, unseal
from agentkit.memory.sealing.snapshots import SNAPSHOTS

MOST_PLACES = 200
"""Places that are asked about; the newest, where there are more."""

AT_ONCE = 50
"""Hashes in one question."""


async def check_alone(signer: Sealer, gateways: Gateways, journal: Journal) -> None:
    """Raise StateForked when another machine went on from where this one stands.

    Raises StoreUnavailable when no gateway can be asked.
    """
    places = await journal.commit(_places)
    hashes = list(places)
    for start in range(0, len(hashes), AT_ONCE):
        tags = [("Prev", place) for place in hashes[start : start + AT_ONCE]]
        listed = await gateways.find(name_of(signer.public_key), [*APP, *tags])
        for found in listed.found:
            stream = places.get(dict(found.tags).get("Prev", ""))
            if stream and not await journal.commit(partial(_is_mine, found, stream)):
                await _look_at(signer, gateways, journal, found)


def _is_mine(found: MergedItem, stream: str, tx: JournalTransaction) -> bool:
    """Whether a segment claims to end with an event of ours, whose hash covers all before it."""
    try:
        piece = piece_of(found.id, found.tags, found.height)
    except StateCorrupt:
        return True  # no segment, whoever made it
    return tx.hash_at(stream, piece.last).hex() == piece.head


async def _look_at(signer: Sealer, gateways: Gateways, journal: Journal, found: MergedItem) -> None:
    try:
        theirs = unseal(signer, await gateways.item(found))
    except (StateCorrupt, WrongKey):
        return  # no segment of this wallet, whatever a gateway says
    await journal.commit(lambda tx: _compare(tx, found.id, theirs, journal.home))


def _places(tx: JournalTransaction) -> dict[str, str]:
    """Return the hashes after which another machine may have gone on, each with its stream."""
    last = (e.WALLET, tx.last_sealed(e.WALLET) + 1)
    ends = [last, *(place for place in tx.outbox.undoable(MOST_PLACES) if place[0] != SNAPSHOTS)]
    hashes = {tx.hash_at(stream, first - 1).hex(): stream for stream, first in ends}
    return {digest: stream for digest, stream in hashes.items() if digest}


def _compare(tx: JournalTransaction, item: str, theirs: Segment, home: Path) -> None:
    """Raise StateForked for a segment that does not end in an event of ours."""
    if tx.hash_at(theirs.stream, theirs.last) == theirs.head:
        return
    mine = list(tx.rows(theirs.stream, theirs.first - 1))
    head = mine[-1] if mine else None
    paid = payments(mine if theirs.stream == e.WALLET else ())
    told = (
        f"another machine goes on with {theirs.stream} after event {theirs.first - 1}:"
        f" item {item} (events {theirs.first} to {theirs.last}, head {theirs.head.hex()[:12]},"
        f" by {theirs.instance or 'an unnamed one'}), while here by {tx.instance} it is"
        f" {f'at event {head.seq}, head {head.hash.hex()[:12]}' if head else 'where it was'}"
    )
    raise StateForked(
        told,
        stream=theirs.stream,
        after=theirs.first - 1,
        ours=(tx.instance, head.hash.hex() if head else ""),
        theirs=(theirs.instance, theirs.head.hex()),
        payments=paid,
        home=home,
    )
