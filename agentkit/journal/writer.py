"""The one thread that writes: works queued while it commits go into the next commit together."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from agentkit.errors import AgentKitError, JournalDamaged, StoreUnavailable
from agentkit.journal.fork_safety import Connection, using
from agentkit.journal.store import Tx, connect

MOST_IN_ONE_COMMIT = 1024


Told = Callable[[Any], None]
"""Called on the loop that asked, with what a work returned, or with its error."""


class _Job(NamedTuple):
    work: Callable[[Tx], Any]
    loop: asyncio.AbstractEventLoop
    told: Told


class Writer:
    """A thread that runs works, each in a savepoint, many in one durable commit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="agentkit-journal", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Tx], Any], told: Told) -> None:
        """Queue a work; `told` hears of it once it is durable, or has failed."""
        self._queue.put(_Job(work, asyncio.get_running_loop(), told))

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        db = self._connected()
        going = True
        while going:
            jobs, going = self._next()
            if not jobs:
                continue
            try:
                db = db or connect(self._path)
                with using(db):
                    outcomes = _commit(db, self._path, jobs)
            except sqlite3.Error as wrong:
                outcomes = [as_ours(self._path, wrong)] * len(jobs)
            except Exception as wrong:  # noqa: BLE001  # the thread must live on, whatever it was
                outcomes = [wrong] * len(jobs)
            _deliver(jobs, outcomes)
        if db:
            db.close()

    def _connected(self) -> Connection | None:
        """Connect before there is work; a failure is met again, and reported, with the first."""
        try:
            return connect(self._path)
        except sqlite3.Error:
            return None

    def _next(self) -> tuple[list[_Job], bool]:
        """Wait for work, then take all there is; False once the end was asked for."""
        jobs: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == MOST_IN_ONE_COMMIT:
                return jobs, True
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False


def _commit(db: sqlite3.Connection, path: Path, jobs: list[_Job]) -> list[Any]:
    """Run the works in one transaction; after an error again, so that it undoes only its own."""
    try:
        return _in_one(db, path, [job.work for job in jobs], _bare)
    except AgentKitError:
        return _in_one(db, path, [job.work for job in jobs], _apart)


def _in_one(
    db: sqlite3.Connection,
    path: Path,
    works: list[Callable[[Tx], Any]],
    run: Callable[[sqlite3.Connection, Tx, Callable[[Tx], Any]], Any],
) -> list[Any]:
    db.execute("begin immediate")
    try:
        tx = Tx(db, path)
        outcomes = [run(db, tx, work) for work in works]
        tx.flush()
        db.execute("commit")
    except BaseException:
        if db.in_transaction:
            db.execute("rollback")
        raise
    return outcomes


def _bare(db: sqlite3.Connection, tx: Tx, work: Callable[[Tx], Any]) -> Any:
    try:
        return work(tx)
    except sqlite3.Error:
        raise
    except Exception as wrong:  # works may raise anything; here it only means: not in one go
        raise AgentKitError from wrong


def _apart(db: sqlite3.Connection, tx: Tx, work: Callable[[Tx], Any]) -> Any:
    """Run one work in a savepoint; its error undoes it alone and is its outcome."""
    db.execute("savepoint work")
    try:
        outcome = work(tx)
        tx.flush()
    except sqlite3.Error:
        raise
    except Exception as wrong:  # noqa: BLE001  # the caller gets it; the thread must live on
        db.execute("rollback to work")
        tx.forget()
        outcome = wrong
    db.execute("release work")
    return outcome


def as_ours(path: Path, wrong: sqlite3.Error) -> AgentKitError:
    """Return our error for SQLite's."""
    if isinstance(wrong, sqlite3.DatabaseError) and not isinstance(wrong, sqlite3.OperationalError):
        return JournalDamaged(path, "the file itself", str(wrong))
    return StoreUnavailable(
        f"the state file {path} cannot be written: {wrong}",
        hint=f"check free disk space and permissions of {path.parent}; what was done is kept",
    )


def _deliver(jobs: list[_Job], outcomes: list[Any]) -> None:
    """Tell of the works, with one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Told, Any]]] = {}
    for job, outcome in zip(jobs, outcomes, strict=True):
        by_loop.setdefault(job.loop, []).append((job.told, outcome))
    for loop, settled in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed, and nobody waits
            loop.call_soon_threadsafe(_tell, settled)


def _tell(settled: list[tuple[Told, Any]]) -> None:
    for told, outcome in settled:
        told(outcome)
