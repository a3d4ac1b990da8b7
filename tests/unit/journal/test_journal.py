import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.toy_market import WALLET, toy

from agentkit.errors import AgentKitError, JournalDamaged, OverBudget, StoreUnavailable, WrongKey
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.outbox_tables import Carrier, OutgoingSegment
from agentkit.journal.produced import TINY_BYTES
from agentkit.journal.rows import Base
from agentkit.journal.transaction import JournalTransaction
from agentkit.market.seams import Record


def note(text: str, topic: str = "t") -> e.NoteAdded:
    return e.NoteAdded(topic=topic, text=text)


async def test_what_was_committed_is_there_for_the_next_process(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, WALLET)
    await asyncio.gather(
        *(journal.commit(lambda tx, n=n: tx.append(e.WALLET, note(str(n)))) for n in range(100))
    )
    await journal.close()
    again = await Journal.open(tmp_path, WALLET)
    rows = await again.rows(e.WALLET)
    assert [row.seq for row in rows] == list(range(1, 101))
    assert {row.event().text for row in rows} == {str(n) for n in range(100)}  # type: ignore[attr-defined]
    assert await again.check() == 100
    await again.close()


async def test_a_work_that_fails_undoes_itself_alone(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, WALLET)

    def fails(tx: JournalTransaction) -> None:
        tx.append(e.WALLET, note("never"))
        raise OverBudget("budget", "2 USDC", "1 USDC")

    works = [
        journal.commit(fails)
        if n == 5
        else journal.commit(lambda tx, n=n: tx.append(e.WALLET, note(str(n))))
        for n in range(10)
    ]
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    assert isinstance(outcomes[5], OverBudget)
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 9
    assert await journal.check() == 9
    assert len(await journal.commit(lambda tx: tx.every(r.Note, "t|"))) == 9
    await journal.close()


async def test_records_are_found_by_prefix_in_order(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, WALLET)
    for topic in ("b", "a", "ab", "a%", "a_"):
        await journal.commit(lambda tx, topic=topic: tx.append(e.WALLET, note("x", topic)))
    found = await journal.commit(lambda tx: tx.every(r.Note, "a"))
    assert [row.topic for row in found] == ["a%", "a_", "ab", "a"]
    await journal.close()


async def test_another_wallets_file_is_refused(tmp_path: Path) -> None:
    await (await Journal.open(tmp_path, WALLET)).close()
    with pytest.raises(WrongKey, match="belongs to wallet"):
        await Journal.open(tmp_path, "0x" + "bb" * 20)


async def test_a_folder_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be used") as raised:
        await Journal.open(tmp_path / "file" / "home", WALLET)
    assert "AGENTKIT_HOME" in raised.value.hint


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    await (await Journal.open(tmp_path, WALLET)).close()
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as db:
        db.execute("update meta set value='99' where name='schema'")
    with pytest.raises(JournalDamaged, match="schema"):
        await Journal.open(tmp_path, WALLET)


async def test_an_event_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path, WALLET)
    await journal.commit(lambda tx: tx.append(e.WALLET, note("x")))

    def rewrite(tx: JournalTransaction) -> None:
        (row,) = tx.rows(e.WALLET)
        row = row._replace(version=99, seq=2)
        tx.insert(row, row.link(tx.head(e.WALLET)[1]))

    await journal.commit(rewrite)
    with pytest.raises(JournalDamaged, match="newer version"):
        await journal.check()
    await journal.close()


# -- a byte flipped in each column ---------------------------------------------------------------

COLUMNS = [
    ("meta", "name"),
    ("meta", "value"),
    ("events", "stream"),
    ("events", "seq"),
    ("events", "at"),
    ("events", "kind"),
    ("events", "version"),
    ("events", "body"),
    ("events", "hash"),
    ("records", "kind"),
    ("records", "key"),
    ("records", "body"),
    ("records", "checksum"),
    ("blobs", "digest"),
    ("blobs", "data"),
    ("bases", "stream"),
    ("bases", "seq"),
    ("bases", "hash"),
    ("bases", "body"),
    ("bases", "checksum"),
    ("heads", "stream"),
    ("heads", "seq"),
    ("heads", "hash"),
    ("heads", "checksum"),
    ("outbox", "item"),
    ("outbox", "stream"),
    ("outbox", "first"),
    ("outbox", "last"),
    ("outbox", "raw"),
    ("outbox", "state"),
    ("outbox", "at"),
    ("outbox", "posts"),
    ("outbox", "carrier"),
    ("outbox", "note"),
    ("outbox", "moved"),
    ("outbox", "checksum"),
    ("carriers", "tx"),
    ("carriers", "header"),
    ("carriers", "items"),
    ("carriers", "fee"),
    ("carriers", "height"),
    ("carriers", "state"),
    ("carriers", "at"),
    ("carriers", "checksum"),
    ("trouble", "name"),
    ("trouble", "said"),
    ("trouble", "checksum"),
]


KEYS = {
    "meta": "name",
    "events": "stream",
    "records": "key",
    "blobs": "digest",
    "heads": "stream",
    "outbox": "item",
    "carriers": "tx",
    "trouble": "name",
    "bases": "stream",
}


def flipped(value: object) -> object:
    """Return the value with one bit flipped; of a number one that keeps it unlike its peers."""
    if isinstance(value, int):
        return value ^ 64
    data = bytearray(value.encode() if isinstance(value, str) else value)  # type: ignore[arg-type]
    data[len(data) // 2] ^= 1
    return data.decode() if isinstance(value, str) else bytes(data)


def flip(path: Path, table: str, column: str, where: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        key, value = db.execute(f"select {where}, {column} from {table} order by 1").fetchone()
        changed = db.execute(
            f"update {table} set {column}=? where {where}=?", (flipped(value), key)
        ).rowcount
    assert changed >= 1


def schema_columns(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        tables = [
            name for (name,) in db.execute("select name from sqlite_master where type='table'")
        ]
        return [(t, row[1]) for t in tables for row in db.execute(f"pragma table_info({t})")]


async def filled(folder: Path) -> Path:
    """Make a state file with something in every table; returns its path."""
    async with toy(folder) as market:
        graph = JobGraph("g")
        graph.infer("hello", model="m", prompt="x" * TINY_BYTES)  # too long to stand in an event
        await market.run(graph)
        await market.journal.commit(put_uploads)
        base = Base("a-run-that-ended", 7, b"\x07" * 32, "what it had come to")
        await market.journal.commit(lambda tx: tx.put_base(base))
        return market.journal.path


def put_uploads(tx: JournalTransaction) -> None:
    sent = OutgoingSegment("item-1", e.WALLET, 1, 2, b"raw bytes", "sealed", 1_000_000)
    tx.outbox.put(sent._replace(carrier="tx-1", note="lost"))
    tx.outbox.put_carrier(Carrier("tx-1", "{}", "item-1", 212, 9, "signed", 1_000_000))
    tx.outbox.put_trouble("the gateway is down")


async def test_every_column_is_in_the_list_below(tmp_path: Path) -> None:
    assert sorted(schema_columns(await filled(tmp_path))) == sorted(COLUMNS)


@pytest.mark.parametrize(("table", "column"), COLUMNS)
async def test_a_flipped_byte_in_any_column_is_found(
    tmp_path: Path, table: str, column: str
) -> None:
    path = await filled(tmp_path)
    where = KEYS[table]
    if (table, column) in {("events", "stream"), ("events", "seq")}:
        where = "hash"
    flip(path, table, column, where)
    with pytest.raises(AgentKitError) as raised:
        journal = await Journal.open(path.parent, WALLET)
        try:
            await journal.check()
        finally:
            await journal.close()
    assert isinstance(raised.value, JournalDamaged | WrongKey)
    assert raised.value.hint


async def test_a_torn_file_is_damaged_not_a_traceback(tmp_path: Path) -> None:
    path = await filled(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("pragma wal_checkpoint(truncate)")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xff" * (len(data) - len(data) // 2))
    with pytest.raises(AgentKitError) as raised:
        journal = await Journal.open(path.parent, WALLET)
        try:
            await journal.check()
        finally:
            await journal.close()
    assert isinstance(raised.value, JournalDamaged)


async def test_a_missing_event_is_found(tmp_path: Path) -> None:
    path = await filled(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("delete from events where seq=2")
    journal = await Journal.open(path.parent, WALLET)
    with pytest.raises(JournalDamaged, match="missing"):
        await journal.check()
    await journal.close()


def test_every_record_says_its_key() -> None:
    for record in r.RECORDS.values():
        assert record.key is not Record.key, record


async def test_a_file_is_not_called_damaged_because_another_process_writes(tmp_path: Path) -> None:
    """Whoever resumes a run while others pay would be told to throw its state away."""
    journal = await Journal.open(tmp_path, WALLET)
    other = await Journal.open(tmp_path, WALLET)
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            note = e.NoteAdded(topic=f"t{written}", text="x" * 200)
            await other.commit(lambda tx: tx.append(e.WALLET, note))
            written += 1

    writing = asyncio.create_task(write())
    seen = set()
    for _ in range(40):
        seen.add(await journal.check())
        await asyncio.sleep(0.01)
    assert len(seen) > 10
    writing.cancel()
    await asyncio.wait([writing])
    await journal.close()
    await other.close()
