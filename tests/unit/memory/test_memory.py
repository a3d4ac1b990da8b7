"""Notes, the sealed log, and the way back from nothing but a key."""

from pathlib import Path

import pytest
from support.memory_fixtures import SIGNER

from agentkit.errors import StateCorrupt, WrongKey
from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.memory.arweave.ans104 import parse_item
from agentkit.memory.sealing.backlog import seal_all
from agentkit.memory.sealing.segments import seal, unseal


async def test_a_segment_sealed_by_another_key_does_not_open(tmp_path: Path) -> None:
    other = KeySigner(b"\x44" * 32)
    journal = await Journal.open(tmp_path, SIGNER.address)
    await journal.commit(lambda tx: tx.append(e.WALLET, e.NoteAdded(topic="t", text="x")))
    await journal.commit(lambda tx: seal_all(tx, SIGNER))
    (segment,) = await journal.commit(lambda tx: tx.outbox.in_states("sealed"))
    item = parse_item(segment.raw)
    assert unseal(SIGNER, item).last == 1
    with pytest.raises(WrongKey, match="does not open"):
        unseal(other, item)
    await journal.close()


async def test_events_that_do_not_follow_their_tags_are_refused(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, SIGNER.address)
    for text in ("one", "two"):
        note = e.NoteAdded(topic="t", text=text)
        await journal.commit(lambda tx, note=note: tx.append(e.WALLET, note))
    await journal.commit(lambda tx: seal_all(tx, SIGNER))
    (segment,) = await journal.commit(lambda tx: tx.outbox.in_states("sealed"))
    whole = unseal(SIGNER, parse_item(segment.raw))
    lie = type(whole)(whole.stream, whole.rows, whole.before, b"\0" * 32, whole.blobs)
    with pytest.raises(StateCorrupt, match="other events than its tags say"):
        unseal(SIGNER, seal(SIGNER, lie))
    await journal.close()
