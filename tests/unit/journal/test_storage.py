"""Storage in SQLite and in memory: whatever a journal asks, both answer the same."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import IntentMismatch, StoreUnavailable
from agentkit.journal import events as e
from agentkit.journal import integrity, store
from agentkit.journal import records as r
from agentkit.journal.in_memory import MemoryJournal, MemoryStorage
from agentkit.journal.rows import Base, Head, Row, genesis
from agentkit.journal.storage import Storage
from agentkit.journal.transaction import JournalTransaction
from agentkit.testing.fakes import USDC


@pytest.fixture(params=["sqlite", "memory"])
def storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    if request.param == "memory":
        yield MemoryStorage(Path("nowhere"))
        return
    with closing(store.connect(":memory:")) as db:
        db.executescript(store.SCHEMA)
        yield store.SqliteStorage(db, "nowhere")


def write(tx: JournalTransaction) -> None:
    """Write something of every sort."""
    tx.append(e.WALLET, e.NoteAdded(topic="t", text="one"))
    tx.append(e.WALLET, e.NoteAdded(topic="t", text="two"))
    tx.append(e.WALLET, e.Shelved(shelf="s", entries={"b": 1, "a": 2, "ab": 3}))
    tx.append(e.WALLET, e.Unshelved(shelf="s", names=("b",)))
    tx.append("r1", e.Extra(owner="test", version=1, json_text="1"))
    tx.put_blob(b"bytes")
    tx.flush()


def everything(storage: Storage) -> list[Any]:
    """Return all that a storage answers."""
    streams = storage.streams()
    return [
        streams,
        sorted(storage.heads()),
        [storage.head(name) for name in sorted(storage.heads())],
        [[row._replace(at=0, hash=b"") for row in storage.events(s, 0, -1)] for s in streams],
        [storage.newest_event(stream) is not None for stream in [*streams, "none"]],
        [storage.has_event(e.WALLET, seq) for seq in range(7)],
        [(row.kind, row.key) for row in storage.all_records()],
        [row.key for row in storage.records("Entry", "s|a")],
        sorted(storage.record_checksums()),
        storage.blob_digests(),
        storage.base("r1"),
        storage.text_size([e.WALLET]),
    ]


def test_what_was_written_is_there_and_sound(storage: Storage) -> None:
    storage.begin()
    write(JournalTransaction(storage))
    storage.commit()
    tx = JournalTransaction(storage)
    assert [note.text for note in tx.every(r.Note)] == ["one", "two"]
    assert [entry.name for entry in tx.every(r.Entry, "s|")] == ["a", "ab"]
    assert [row.seq for row in tx.rows(e.WALLET, 1, 2)] == [2, 3]
    assert [row.seq for row in tx.rows(e.WALLET, -1)] == [1, 2, 3, 4]
    assert integrity.check(tx) == 5


def test_both_answer_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.time, "time", lambda: 1_000_000.0)  # hashes depend on the time
    with closing(store.connect(":memory:")) as db:
        db.executescript(store.SCHEMA)
        both: list[Storage] = [store.SqliteStorage(db, "x"), MemoryStorage(Path("x"))]
        for storage in both:
            storage.begin()
            write(JournalTransaction(storage))
            storage.commit()
        assert everything(both[0]) == everything(both[1])


def test_a_transaction_that_is_rolled_back_leaves_nothing(storage: Storage) -> None:
    storage.begin()
    write(JournalTransaction(storage))
    storage.commit()
    before = everything(storage)
    storage.begin()
    tx = JournalTransaction(storage)
    tx.append(e.WALLET, e.Forgotten(what="notes", name="t"))
    tx.append("r2", e.Extra(owner="test", version=1, json_text="2"))
    tx.put_base(Base("r3", 4, b"\x01" * 32, ""))
    tx.put_blob(b"more")
    tx.flush()
    assert everything(storage) != before
    storage.rollback()
    assert everything(storage) == before


def test_a_head_only_moves_forward(storage: Storage) -> None:
    storage.begin()
    newer = Head.of("r1", 5, b"\x05" * 32)
    storage.advance_head(newer)
    storage.advance_head(Head.of("r1", 3, b"\x03" * 32))
    assert storage.head("r1") == newer


def test_an_event_of_before_a_base_is_found(storage: Storage) -> None:
    storage.begin()
    tx = JournalTransaction(storage)
    tx.put_base(Base("r1", 2, b"\x02" * 32, "{}"))
    assert tx.start("r1") == (2, b"\x02" * 32)
    row = Row("r1", 1, 0, "Extra", e.VERSION, "{}")
    tx.insert(row, row.link(genesis("r1")))
    tx.flush()
    assert tx.start("r1") == (0, genesis("r1"))


async def test_a_work_that_fails_in_memory_is_undone_alone(tmp_path: Path) -> None:
    journal = MemoryJournal(tmp_path)

    def fails(tx: JournalTransaction) -> None:
        tx.append(e.WALLET, e.NoteAdded(topic="t", text="lost"))
        assert [note.text for note in tx.every(r.Note)] == ["kept", "lost"]
        tx.append(e.WALLET, e.Spent(attempt="a", provider="p", amount=USDC.zero(), standing="paid"))

    await journal.commit(lambda tx: tx.append(e.WALLET, e.NoteAdded(topic="t", text="kept")))
    with pytest.raises(IntentMismatch):
        await journal.commit(fails)
    assert [note.text for note in await journal.commit(lambda tx: tx.every(r.Note))] == ["kept"]
    assert await journal.check() == 1
    with pytest.raises(StoreUnavailable, match="seals nothing"):
        await journal.commit(lambda tx: tx.outbox)
