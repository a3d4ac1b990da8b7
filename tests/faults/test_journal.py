"""The state file is full, read-only, damaged, torn or newer: nothing is spent, nothing is lost."""

import asyncio
import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.fault_jobs import HALF, ROWS, all_is_well, half_way, mapped
from support.processes import PROGRAMS
from support.processes.run_with_faults import BIG_ROWS
from support.timing import limit
from support.toy_market import toy

from agentkit.errors import AgentKitError, JournalDamaged, RunPaused
from agentkit.journal.rows import Row
from agentkit.runtime import run as runs
from agentkit.testing.fakes import FakeProvider

CHILDREN = PROGRAMS / "run_with_faults.py"


def child(verb: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHILDREN), verb, str(folder), *more],
        stdout=subprocess.PIPE,
        text=True,
        timeout=limit(60),
        check=False,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def said(process: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert process.returncode == 0
    return [json.loads(line) for line in process.stdout.splitlines()]


# -- a full disk ---------------------------------------------------------------------------------


def test_a_disk_that_fills_up_stops_the_run_and_room_lets_it_go_on(tmp_path: Path) -> None:
    stopped, ended = said(child("full", tmp_path, "later"))
    assert stopped["errno"] == errno.EFBIG
    assert 0 <= stopped["left"] < 4096 + 24 + 4096  # no further page fits
    assert stopped["error"] in ("StoreUnavailable", "RunPaused")  # a pause may still fit
    assert "state.db cannot be written" in stopped["says"]
    assert (
        0 < ended["before"] <= stopped["executed"] < BIG_ROWS
    )  # it was in the middle, and what it had stayed
    assert ended["receipts"] == ended["executed"] == BIG_ROWS


def test_on_a_full_disk_nothing_begins(tmp_path: Path) -> None:
    (refused,) = said(child("full", tmp_path, "at once"))
    assert refused["errno"] == errno.EFBIG
    assert refused["error"] == "StoreUnavailable"
    assert "free disk space" in refused["hint"]
    assert refused["executed"] == 0


# -- a journal that may not be written -----------------------------------------------------------


async def paused(folder: Path) -> str:
    """Run half of a job, and leave it paused; returns the run's id."""
    async with toy(folder, one=FakeProvider("one", folder / "one")) as market:
        half_way(market.providers["one"])
        run = await runs.start(market.means, await market.plan(mapped(folder)))
        with pytest.raises(RunPaused):
            await run.result()
        assert len(market.executions) == HALF
        return run.id


async def ends_well(folder: Path, run_id: str) -> None:
    async with toy(folder, one=FakeProvider("one", folder / "one")) as market:
        run = await runs.resume(market.means, run_id)
        await run.result()
        await all_is_well(market, run.status, ROWS)


def executed(folder: Path) -> int:
    return len(FakeProvider("one", folder / "one").executions)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own is for one alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        (folder / "home").chmod(0o755)


def test_a_read_only_journal_is_refused_in_a_sentence_and_nothing_is_bought(
    open_folder: Path,
) -> None:
    run, home = asyncio.run(paused(open_folder)), open_folder / "home"
    for path in (*home.rglob("*"), *(open_folder / "one").rglob("*"), open_folder / "one"):
        path.chmod(0o777)
    (home / "state.db").chmod(0o444)
    home.chmod(0o555)
    before = (home / "state.db").read_bytes()
    (refused,) = said(child("resume", open_folder, run))
    assert refused["uid"] != 0
    assert refused["error"] == "StoreUnavailable"
    assert str(home) in refused["says"]
    assert "permissions" in refused["hint"] or "can be written" in refused["hint"]
    assert executed(open_folder) == HALF
    assert (home / "state.db").read_bytes() == before
    home.chmod(0o777)
    (home / "state.db").chmod(0o666)
    asyncio.run(ends_well(open_folder, run))


# -- a journal that is not what was written ------------------------------------------------------


def changed(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute(statement).rowcount == 1


FIRST_ITEM = "kind='ItemDone' and seq=(select min(seq) from events where kind='ItemDone')"


def another_price(path: Path) -> None:
    changed(path, f"update events set body=replace(body, '0.0', '9.0') where {FIRST_ITEM}")


def row_gone(path: Path) -> None:
    changed(path, f"delete from events where {FIRST_ITEM}")


def newer_event(path: Path) -> None:
    """Let the newest event of the run be one of the next version, well chained."""
    columns = "stream, seq, at, kind, version, body, hash"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        query = f"select {columns} from events where stream like 'r%' order by seq desc limit 2"
        last, before = (Row(*found) for found in db.execute(query))
        newer = last._replace(version=last.version + 1)
        db.execute(
            "update events set version=?, hash=? where stream=? and seq=?",
            (newer.version, newer.link(before.hash), newer.stream, newer.seq),
        )


def newer_schema(path: Path) -> None:
    changed(path, "update meta set value=cast(value as integer)+1 where name='schema'")


def torn(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + 1000])


def page_of_zeros(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8192:12288] = bytes(4096)
    path.write_bytes(data)


DAMAGES = [another_price, row_gone, torn, page_of_zeros]
NEWER = [newer_schema, newer_event]


@pytest.mark.parametrize("damage", [*DAMAGES, *NEWER], ids=lambda damage: damage.__name__)
async def test_a_damaged_journal_is_refused_and_a_good_copy_goes_on(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    run, home = await paused(tmp_path), tmp_path / "home"
    shutil.copytree(home, tmp_path / "good")
    good = (home / "state.db").read_bytes()
    damage(home / "state.db")
    assert (home / "state.db").read_bytes() != good
    with pytest.raises(AgentKitError) as raised:
        await ends_well(tmp_path, run)
    assert isinstance(raised.value, JournalDamaged)
    mends = "memory restore" if damage in DAMAGES else "use the agentkit that wrote it"
    assert mends in raised.value.hint
    assert executed(tmp_path) == HALF
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "good", home)
    await ends_well(tmp_path, run)


# -- rows that were deleted ----------------------------------------------------------------------

NEWEST = "seq=(select max(seq) from events as all_of where all_of.stream=events.stream)"

DELETED = [
    "events where stream='wallet'",
    f"events where stream='wallet' and {NEWEST}",
    f"events where stream<>'wallet' and {NEWEST}",
    "heads",
    "heads where stream='wallet'",
    "records",
    *(
        f"records where kind='{kind}'"
        for kind in ("Run", "Hold", "Reservation", "Total", "Account")
    ),
]


@pytest.mark.parametrize("rows", DELETED)
async def test_deleted_rows_are_missed_before_anything_is_bought(tmp_path: Path, rows: str) -> None:
    """A run must not be finished, nor another begun, on books that lack what was spent."""
    run = await paused(tmp_path)
    with closing(sqlite3.connect(tmp_path / "home" / "state.db", isolation_level=None)) as db:
        assert db.execute(f"delete from {rows}").rowcount > 0
    with pytest.raises(JournalDamaged, match="is damaged at") as raised:
        await ends_well(tmp_path, run)
    assert "`agentkit memory verify`" in raised.value.hint
    assert executed(tmp_path) == HALF
    if "stream<>'wallet'" not in rows:  # another run has its own events, and the same money
        async with toy(tmp_path, one=FakeProvider("one", tmp_path / "one")) as market:
            with pytest.raises(JournalDamaged):
                await runs.start(market.means, await market.plan(mapped(tmp_path)))
        assert executed(tmp_path) == HALF
    with pytest.raises(JournalDamaged):
        async with toy(tmp_path) as market:
            await market.journal.check()


# -- a log that was cut off ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed agent leaves: half a run, all of it in the log beside the state file."""
    folder = tmp_path_factory.mktemp("killed")
    assert child("die", folder).returncode == -signal.SIGKILL
    assert (folder / "home" / "state.db-wal").stat().st_size > 8 * 4096
    return folder


def events_in(home: Path, copy: Path) -> int:
    """Count the events of a state file and its log, on a copy."""
    shutil.copytree(home, copy)
    with closing(sqlite3.connect(copy / "state.db")) as db:
        return int(db.execute("select count(*) from events").fetchone()[0])


@pytest.mark.parametrize("share", [0.35, 0.6, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("how", ["cut", "flipped"])
async def test_what_a_torn_log_forgets_is_not_bought_again(
    tmp_path: Path, killed: Path, share: float, how: str
) -> None:
    """What lies behind the tear is gone; attempts have the same keys again, and are known."""
    folder = tmp_path / "f"
    shutil.copytree(killed, folder)
    log = folder / "home" / "state.db-wal"
    data = bytearray(log.read_bytes())
    place = int(len(data) * share)
    assert (place - 32) % (4096 + 24)  # in the middle of a page
    data[place] ^= 255
    log.write_bytes(data[:place] if how == "cut" else data)
    run_id = (folder / "run").read_text()
    async with toy(folder) as market:
        assert len(market.executions) == HALF
        known = events_in(killed / "home", tmp_path / "whole")
        assert await market.journal.check() < known  # it has really forgotten
        try:
            run = await runs.resume(market.means, run_id)
        except AgentKitError as wrong:
            assert share < 0.5, wrong  # so early that the run itself is gone
            assert wrong.hint
            assert len(market.executions) == HALF
            return
        await run.result()
        await all_is_well(market, run.status, ROWS)
