"""Detects that another machine continues the same wallet's state.

Before a process first pays, and before each upload, gateways are asked for segments that were
signed with this wallet's key, follow one of our segments, and were not written here.  This can
only detect a fork and not prevent it: two machines may each pay once before one finds the other's
segment.  The machine that finds one stops.
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
from agentkit.memory.sealer import Sealer
from agentkit.memory.sealing.segment_chain import payments
from agentkit.memory.sealing.segments import APP, Segment, unseal
from agentkit.memory.sealing.snapshots import SNAPSHOTS

MOST_PLACES = 200
"""How many hashes gateways are asked about, the newest ones if there are more."""

AT_ONCE = 50
"""Hashes in one query."""


async def check_alone(signer: Sealer, gateways: Gateways, journal: Journal) -> None:
    """Raise StateForked if another machine has continued a stream from one of our events.

    Raises StoreUnavailable if no gateway answers.
    """
    stream_by_hash = await journal.commit(_checked_hashes)
    hashes = list(stream_by_hash)
    for start in range(0, len(hashes), AT_ONCE):
        previous_tags = [("Prev", digest) for digest in hashes[start : start + AT_ONCE]]
        results = await gateways.find(name_of(signer.public_key), [*APP, *previous_tags])
        for item in results.items:
            stream = stream_by_hash.get(dict(item.tags).get("Prev", ""))
            if stream is None or await journal.commit(partial(_seems_ours, item, stream)):
                continue
            await _read_and_compare(signer, gateways, journal, item)


def _seems_ours(item: MergedItem, stream: str, tx: JournalTransaction) -> bool:
    """Whether an item's tags say that it ends with an event of this journal.

    The hash of an event covers all events before it, so then the whole segment is ours.
    """
    try:
        piece = piece_of(item.id, item.tags, item.height)
    except StateCorrupt:
        return True  # not a segment, so it continues nothing
    return tx.hash_at(stream, piece.last).hex() == piece.head


async def _read_and_compare(
    signer: Sealer, gateways: Gateways, journal: Journal, item: MergedItem
) -> None:
    """Fetch and open a segment that may be another machine's; raises StateForked if it is.

    Tags are only claims: a segment that cannot be verified and opened is ignored.
    """
    try:
        segment = unseal(signer, await gateways.item(item))
    except (StateCorrupt, WrongKey):
        return
    await journal.commit(lambda tx: _compare(tx, item.id, segment, home=journal.home))


def _checked_hashes(tx: JournalTransaction) -> dict[str, str]:
    """Return the hashes after which another machine may have gone on, each with its stream.

    These are the end of the wallet's sealed events, and the starts of segments that a reorg could
    still undo: another machine's segment may be mined in place of one of ours.
    """
    wallet_end = (e.WALLET, tx.last_sealed(e.WALLET) + 1)
    undoable = [
        (stream, first) for stream, first in tx.outbox.undoable(MOST_PLACES) if stream != SNAPSHOTS
    ]
    hashes = {
        tx.hash_at(stream, first - 1).hex(): stream for stream, first in [wallet_end, *undoable]
    }
    return {digest: stream for digest, stream in hashes.items() if digest}


def _compare(tx: JournalTransaction, item: str, foreign: Segment, *, home: Path) -> None:
    """Raise StateForked for a segment that does not end with an event of this journal."""
    if tx.hash_at(foreign.stream, foreign.last) == foreign.head:
        return
    after = foreign.first - 1
    our_rows = list(tx.rows(foreign.stream, after))
    our_last = our_rows[-1] if our_rows else None
    our_state = "where it was"
    if our_last:
        our_state = f"at event {our_last.seq}, head {our_last.hash.hex()[:12]}"
    message = (
        f"another machine goes on with {foreign.stream} after event {after}:"
        f" item {item} (events {foreign.first} to {foreign.last},"
        f" head {foreign.head.hex()[:12]},"
        f" by {foreign.instance or 'an unnamed one'}), while here by {tx.instance} it is"
        f" {our_state}"
    )
    raise StateForked(
        message,
        stream=foreign.stream,
        after=after,
        ours=(tx.instance, our_last.hash.hex() if our_last else ""),
        theirs=(foreign.instance, foreign.head.hex()),
        payments=payments(our_rows if foreign.stream == e.WALLET else ()),
        home=home,
    )
