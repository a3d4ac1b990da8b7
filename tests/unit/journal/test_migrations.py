"""Opening a state file of another schema: what is written, by whom, and what is left alone."""

import asyncio
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.golden_files import figures, unpacked
from support.toy_market import WALLET

from agentkit.errors import AgentKitError, JournalDamaged, StateTooNew, WrongKey
from agentkit.journal import state_file
from agentkit.journal.journal import Journal
from agentkit.journal.migrations import copy_of, migrate
from agentkit.journal.store import SCHEMA_VERSION


def layout(path: Path) -> set[tuple[str, str]]:
    """Return the tables with their columns, and the indexes, of a file."""
    with closing(sqlite3.connect(path)) as db:
        names = db.execute("select type, name from sqlite_master where name not like 'sqlite_%'")
        return {
            (name, ", ".join(f"{column[1]} {column[2]}" for column in columns))
            for _, name in names.fetchall()
            for columns in [db.execute(f"pragma table_info('{name}')").fetchall()]
        }


def files(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}


@pytest.mark.parametrize("folder", ["schema-1", "schema-2", "schema-3-early", "schema-3"])
async def test_a_migrated_file_has_the_layout_of_a_new_one(tmp_path: Path, folder: str) -> None:
    path = unpacked(folder, "agent", tmp_path / "old")
    await (await Journal.open(path.parent, figures(folder, "agent")["wallet"])).close()
    await (await Journal.open(tmp_path / "new", WALLET)).close()
    assert layout(path) == layout(tmp_path / "new" / "state.db")


async def test_another_wallets_old_file_is_not_migrated(tmp_path: Path) -> None:
    path = unpacked("schema-1", "killed", tmp_path / "home")
    before = files(path.parent)
    with pytest.raises(WrongKey, match="belongs to wallet"):
        await Journal.open(path.parent, WALLET)
    assert files(path.parent) == before


@pytest.mark.parametrize("table", ["events", "outbox"])
async def test_an_old_file_that_is_damaged_stays_as_it_is(tmp_path: Path, table: str) -> None:
    then, path = figures("schema-2", "agent"), unpacked("schema-2", "agent", tmp_path / "home")
    column = {"events": "body", "outbox": "state"}[table]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"update {table} set {column}={column} || ' '")
    before = path.read_bytes()
    with pytest.raises(JournalDamaged, match=r"not what was written|was changed") as raised:
        await Journal.open(path.parent, then["wallet"])
    assert "memory verify" in raised.value.hint
    assert path.read_bytes() == before


# -- files that are none of ours -----------------------------------------------------------------


async def newer(home: Path) -> Path:
    """Make the state file of a version after this one."""
    await (await Journal.open(home, WALLET)).close()
    with closing(sqlite3.connect(home / "state.db", isolation_level=None)) as db:
        db.execute("update meta set value=? where name='schema'", (str(SCHEMA_VERSION + 1),))
    return home / "state.db"


async def test_a_newer_file_is_refused_untouched_and_by_name(tmp_path: Path) -> None:
    path = await newer(tmp_path / "home")
    before = files(path.parent)
    assert set(before) == {"state.db"}
    with pytest.raises(StateTooNew) as raised:
        await Journal.open(path.parent, WALLET)
    assert str(path) in str(raised.value)
    assert f"schema {SCHEMA_VERSION + 1}" in str(raised.value)
    assert "damaged" not in str(raised.value)
    assert "pip install --upgrade deai-agentkit" in raised.value.hint
    assert files(path.parent) == before


async def test_a_newer_file_whose_log_was_left_by_a_kill_is_refused_too(tmp_path: Path) -> None:
    """The file itself still says the older schema; what says the newer one is in its log."""
    home, killed = tmp_path / "home", tmp_path / "killed"
    await (await Journal.open(home, WALLET)).close()
    with closing(sqlite3.connect(home / "state.db", isolation_level=None)) as db:
        db.execute("update meta set value=? where name='schema'", (str(SCHEMA_VERSION + 1),))
        shutil.copytree(home, killed)
    before = {name: data for name, data in files(killed).items() if not name.endswith("-shm")}
    assert before["state.db-wal"]
    with pytest.raises(StateTooNew, match=f"schema {SCHEMA_VERSION + 1}"):
        await Journal.open(killed, WALLET)
    after = files(killed)
    assert {name: after[name] for name in before} == before


def not_sqlite(path: Path) -> None:
    path.write_bytes(b"this is a letter to a friend\n" * 400)


def another_program(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("create table contacts(name text)")


def no_number(path: Path) -> None:
    asyncio.run(made(path.parent))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("update meta set value='new' where name='schema'")


async def made(home: Path) -> None:
    await (await Journal.open(home, WALLET)).close()


@pytest.mark.parametrize("write", [not_sqlite, another_program, no_number])
def test_a_file_that_is_no_state_file_is_damaged_and_left_alone(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "state.db")
    before = files(tmp_path)
    with pytest.raises(JournalDamaged) as raised:
        asyncio.run(made(tmp_path))
    assert not isinstance(raised.value, StateTooNew)
    assert files(tmp_path) == before


async def test_opening_a_file_of_this_schema_writes_nothing(tmp_path: Path) -> None:
    await made(tmp_path)
    before = files(tmp_path)
    journal = await Journal.open(tmp_path, WALLET)
    assert await journal.rows("wallet") == []
    assert await journal.check() == 0
    await journal.close()
    assert files(tmp_path) == before


async def test_a_migration_says_where_the_copy_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    then, path = figures("schema-1", "killed"), unpacked("schema-1", "killed", tmp_path / "home")
    with caplog.at_level(logging.WARNING):
        await made_for(path, then["wallet"])
    assert f"a copy is in {copy_of(path, 1)}" in caplog.text


async def made_for(path: Path, wallet: str) -> None:
    await (await Journal.open(path.parent, wallet)).close()


@pytest.mark.parametrize("kind", ["view", "trigger"])
def test_a_file_that_would_compute_is_no_state_file(tmp_path: Path, kind: str) -> None:
    """A stranger's file may hold a view that never ends in place of a table."""
    path = tmp_path / "state.db"
    state_file.make(path, "0x" + "11" * 20)
    made = {
        "view": "create view loop as with recursive n(x) as (select 1 union all select x from n)"
        " select * from n",
        "trigger": "create trigger t after insert on meta begin delete from meta; end",
    }
    with closing(sqlite3.connect(path)) as db:
        db.execute(made[kind])
    with pytest.raises(JournalDamaged, match="not a state file"):
        state_file.read_meta(path)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_strangers_lock_holds_nobody_and_leads_nowhere(tmp_path: Path, kind: str) -> None:
    lock, outside = tmp_path / "state.db.migrating", tmp_path / "outside"
    if kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(outside)
    with suppress(OSError, AgentKitError):
        migrate(tmp_path / "state.db")
    assert not outside.exists()
