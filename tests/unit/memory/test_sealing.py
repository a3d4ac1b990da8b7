"""When the journal is sealed, how large segments become, and how it all is told."""

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.gateway_fixtures import SIGNER

from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.journal.outbox_tables import OUTBOX_STATES, OutgoingSegment
from agentkit.memory.arweave.ans104 import parse_item
from agentkit.memory.backup_status import BackupStatus, age, read_backup_status
from agentkit.memory.sealing import backlog
from agentkit.memory.sealing.backlog import MOST_BYTES, MOST_EVENTS, is_due, seal_all
from agentkit.memory.sealing.segments import unseal
from agentkit.money import Money


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path, SIGNER.address)
    yield opened
    await opened.close()


async def write(journal: Journal, *texts: str, stream: str = e.WALLET) -> None:
    for text in texts:
        note = e.NoteAdded(topic="t", text=text)
        await journal.commit(lambda tx, note=note: tx.append(stream, note))


def noise(size: int) -> str:
    return base64.b64encode(os.urandom(size * 3 // 4)).decode()


async def sealed(journal: Journal) -> list[OutgoingSegment]:
    await journal.commit(lambda tx: seal_all(tx, SIGNER))
    return await journal.commit(lambda tx: tx.outbox.in_states("sealed"))


async def test_a_hundred_events_are_due_and_ninety_nine_are_not(journal: Journal) -> None:
    assert not await journal.commit(is_due)
    await write(journal, *("x" for _ in range(MOST_EVENTS - 1)))
    assert not await journal.commit(is_due)
    await write(journal, "x")
    assert await journal.commit(is_due)
    await sealed(journal)
    assert not await journal.commit(is_due)


async def test_many_bytes_are_due(journal: Journal) -> None:
    await write(journal, noise(5 * MOST_BYTES))
    assert await journal.commit(is_due)


async def test_an_old_event_is_due(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    await write(journal, "x")
    assert not await journal.commit(is_due)
    monkeypatch.setattr(backlog, "MOST_SECONDS", -1.0)
    assert await journal.commit(is_due)


async def test_what_uploads_write_down_is_never_due_alone(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MOST_SECONDS", -1.0)
    signed = e.UploadSigned(tx="t", fee=Money.parse("1 AR"))
    for _ in range(2 * MOST_EVENTS):
        await journal.commit(lambda tx: tx.append(e.WALLET, signed))
    assert not await journal.commit(is_due)
    assert await sealed(journal) == []
    assert (await journal.commit(read_backup_status)).unsealed == 0
    await write(journal, "x")
    assert await journal.commit(is_due)
    assert sum(item.events for item in await sealed(journal)) == 2 * MOST_EVENTS + 1


async def test_no_item_is_larger_than_services_take_for_nothing(journal: Journal) -> None:
    await write(journal, *(noise(9_000) for _ in range(60)))  # which hardly packs at all
    items = await sealed(journal)
    assert len(items) > 4
    assert all(len(item.raw) <= MOST_BYTES for item in items)
    segments = [unseal(SIGNER, parse_item(item.raw)) for item in items]
    rows = [row for segment in segments for row in segment.rows]
    assert rows == await journal.rows(e.WALLET)


async def test_an_event_that_is_too_large_alone_is_sealed_all_the_same(journal: Journal) -> None:
    await write(journal, "x", noise(2 * MOST_BYTES), "y")
    items = await sealed(journal)
    assert [(item.first, item.last) for item in items] == [(1, 1), (2, 2), (3, 3)]


async def test_artifacts_count_towards_a_segment(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = [os.urandom(60_000) for _ in range(3)]
    named = [await journal.commit(lambda tx, b=b: tx.put_blob(b)) for b in blobs]
    monkeypatch.setattr(backlog, "artifact_digests_in", lambda row: [named[row.seq - 1]])
    await write(journal, "a", "b", "c")
    items = await sealed(journal)
    assert [item.events for item in items] == [1, 1, 1]
    kept = [unseal(SIGNER, parse_item(item.raw)).blobs for item in items]
    assert kept == [{name: blob} for name, blob in zip(named, blobs, strict=True)]


# -- how it is told ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.9, "59 s"), (250, "4 min"), (7_300, "2 h"), (200_000, "2 d"), (None, "0 s")],
)
def test_ages_are_told_as_people_say_them(seconds: float | None, said: str) -> None:
    assert age(seconds) == said


PAUSED = "Arweave upload paused: needs 0.000212 AR, wallet has 0; state is safe locally only"


def test_the_standing_in_words() -> None:
    behind = BackupStatus(
        unsealed=12,
        segments={"sealed": 2, "mined": 3},
        oldest=250.0,
        window=3_000.0,
        reposted=2,
        notes={"mined but not readable yet": 1},
        trouble=PAUSED,
    )
    assert behind.sentences() == [
        "12 steps not yet on Arweave, oldest 4 min; safe on this machine",
        PAUSED,
        "1 of them: mined but not readable yet",
        "re-posted 2 times",
    ]
    document = behind.document()
    assert document["segments"] == {**dict.fromkeys(OUTBOX_STATES, 0), "sealed": 2, "mined": 3}
    assert (document["not_yet_on_arweave"], document["oldest_s"]) == (12, 250.0)
    assert BackupStatus(0, {"read back": 4}).sentences("the embedded Arweave gateway") == [
        "everything is on the embedded Arweave gateway, in 4 items"
    ]
