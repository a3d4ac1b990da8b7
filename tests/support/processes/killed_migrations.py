"""Migrates copies of one state file and dies on the way, again and again; prints what it saw.

    python killed_migrations.py ORIGINAL FOLDER KILLS

Every process that migrates is forked from this one, which has imported everything already and has
no thread and no connection.  Steps are counted: what SQLite executes, what is synced, what is
renamed.  A first process counts them; each of the others kills itself at another one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from agentkit.journal.fork_safety import Connection
from agentkit.journal.journal import _prepare

INSTRUCTIONS = 20
"""Of SQLite's virtual machine, to a step."""

_connect, _fsync, _replace = sqlite3.connect, os.fsync, Path.replace


PAGES = 5
"""Of a connection's cache."""


class Counted(Connection):
    """A connection whose statements, and whose end, are steps."""

    steps: Steps | None = None

    def execute(self, *args: Any) -> sqlite3.Cursor:
        self._take()
        cursor = super().execute(*args)
        self._take()
        return cursor

    def close(self) -> None:
        self._take()
        super().close()

    def _take(self) -> None:
        if self.steps:
            self.steps.take()


class Steps:
    """Counts the steps of a migration, and ends the process at one of them."""

    def __init__(self, last: int) -> None:
        self.count, self._last = 0, last

    def take(self) -> int:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def connect(self, *args: Any, **named: Any) -> sqlite3.Connection:
        """Connect with a cache so small that a transaction reaches the log before it ends."""
        db: Counted = _connect(*args, **{**named, "factory": Counted})
        db.execute(f"pragma cache_size={PAGES}")
        db.steps = self
        db.set_progress_handler(self.take, INSTRUCTIONS)
        return db

    def fsync(self, handle: int) -> None:
        self.take()
        _fsync(handle)
        self.take()

    def replace(self, path: Path, target: Path) -> Path:
        self.take()
        _replace(path, target)
        self.take()
        return target


def opened(path: Path, last: int) -> int:
    """Open a state file as an agent does; return how many steps that took."""
    steps = Steps(last)
    sqlite3.connect, os.fsync = steps.connect, steps.fsync  # type: ignore[assignment]
    Path.replace = lambda path, target: steps.replace(path, Path(target))  # type: ignore[assignment, method-assign, return-value]
    _prepare(path.parent, wallet_of(path))
    return steps.count


def wallet_of(path: Path) -> str:
    with closing(_connect(path.with_name("original.db"))) as db:
        return str(db.execute("select value from meta where name='wallet'").fetchone()[0])


def rows(path: Path) -> dict[str, Any]:
    """Return every row of a file, but for the name that it is given at random."""
    with closing(_connect(path)) as db:
        found = {}
        for (table,) in db.execute("select name from sqlite_master where type='table'").fetchall():
            query = f"select * from {table} order by 1, 2"
            found[table] = [repr(row) for row in db.execute(query) if row[0] != "instance"]
        return found


def forked(work: Callable[[], Any]) -> tuple[int, str]:
    """Run a work in a process of its own; return its status and what it came to, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, str(work()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    return os.waitpid(child, 0)[1], said


def laid(original: Path, home: Path, mode: str) -> Path:
    """Lay a copy of the file into a home of its own, with the log that agents use or without."""
    home.mkdir()
    shutil.copy(original, home / "original.db")
    path = Path(shutil.copy(original, home / "state.db"))
    with closing(_connect(path)) as db:
        db.execute(f"pragma journal_mode={mode}")
    return path


def main(original: Path, folder: Path, kills: int) -> None:
    before = rows(original)
    path = laid(original, folder / "whole", "wal")
    status, said = forked(lambda: opened(path, 0))
    assert status == 0, status
    whole, steps = rows(path), int(said)
    seen = {"steps": steps, "killed": 0, "copied": 0, "in_transaction": 0, "migrated": 0}
    for number in range(kills):
        mode = "delete" if number % 5 == 4 else "wal"
        path = laid(original, folder / str(number), mode)
        last = steps - (kills - 1 - number) if number >= kills - 2 else 1 + number * steps // kills
        status, _ = forked(lambda path=path, last=last: opened(path, last))  # type: ignore[misc]
        seen["killed"] += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        seen["copied"] += any(path.parent.glob("state.db.schema-?"))
        logs = [path.with_name(f"state.db-{kind}") for kind in ("wal", "journal")]
        seen["in_transaction"] += any(log.exists() and log.stat().st_size for log in logs)
        after = rows(path)
        assert after in (before, whole), f"{number}: half of a migration"
        seen["migrated"] += after == whole
        status, _ = forked(lambda path=path: opened(path, 0))  # type: ignore[misc]
        assert status == 0, f"{number}: {status}"
        assert rows(path) == whole, f"{number}: other rows than without a kill"
        assert rows(next(path.parent.glob("state.db.schema-?"))) == before
        shutil.rmtree(path.parent)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
