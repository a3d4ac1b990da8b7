"""Snapshots: what a machine that goes on from one has, and what it brings back later."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.local_gateway import SIGNER, often

from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.memory.arweave.listing import Claim
from agentkit.memory.arweave.merged_results import MergedItem
from agentkit.memory.restore import remote_log
from agentkit.memory.sealing import snapshots
from agentkit.memory.sealing.backlog import seal_all

__all__ = ["often"]


async def test_snapshots_never_outweigh_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wallet that only notes things down has a state as large as its log: none is posted.

    One that changes what it knows has a small state: snapshots come, and stay a small part.
    """
    monkeypatch.setattr(snapshots, "OUTWEIGHED", 4)
    shares = []
    for name in ("notes", "runs"):
        journal = await Journal.open(tmp_path / name, SIGNER.address)
        for number in range(150):
            text = random.Random(number).randbytes(200).hex()
            note = e.NoteAdded(topic="t", text=text)
            step = e.Extra(owner="a plug-in", version=1, json_text=text)
            event = note if name == "notes" else step
            await journal.commit(lambda tx, event=event: tx.append(e.WALLET, event))
            if number % 10 == 9:
                await journal.commit(lambda tx: seal_all(tx, SIGNER))
        outbox = await journal.commit(lambda tx: tx.outbox.in_states("sealed"))
        await journal.close()
        taken = [len(x.raw) for x in outbox if x.stream == snapshots.SNAPSHOTS]
        shares.append((len(taken), sum(taken) / sum(len(x.raw) for x in outbox)))
    (no, none), (some, share) = shares
    assert (no, none) == (0, 0)
    assert some >= 10
    assert share < 0.2


def test_what_gateways_dispute_is_read_whatever_it_is_called() -> None:
    tags = (("Kind", "segment"), ("Seq-First", "1"), ("Seq-Last", "2"), ("Run", "ab"))
    forged = (("Kind", "snapshot"), *tags[1:])
    claims = [Claim("owner", "signature", told, "", "") for told in (forged, tags)]
    assert remote_log.listed_piece(MergedItem("id", None, tuple(claims))).kind == ""
    assert remote_log.listed_piece(MergedItem("id", None, (claims[0],))).kind == "snapshot"


def test_every_record_can_be_in_a_snapshot() -> None:
    known = {kind for kind in vars(r).values() if isinstance(kind, type)}
    records = {kind for kind in known if issubclass(kind, r.Record) and kind is not r.Record}
    assert records == set(r.RECORDS.values())
