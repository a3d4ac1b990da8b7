"""The one thread that writes a state file: works that queue meanwhile share the next commit.

A commit is durable when the disk has confirmed it, which takes milliseconds.  So all works that
were queued while one commit was under way are done in the next one together (group commit): the
more is to be written, the more of it one confirmation covers.
"""

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
from agentkit.journal.store import SqliteStorage, connect
from agentkit.journal.transaction import JournalTransaction

MOST_IN_ONE_COMMIT = 1024

Work = Callable[[JournalTransaction], Any]
"""Reads, signs and appends in one transaction; it may be run twice, and must do nothing else."""

OnOutcome = Callable[[Any], None]
"""Called on the loop that asked, with what a work returned, or with its error."""


class _Job(NamedTuple):
    """A queued work, and what to call with its outcome."""

    work: Work
    loop: asyncio.AbstractEventLoop
    on_outcome: OnOutcome


class Writer:
    """A thread with the only connection of this process that writes a state file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="agentkit-journal", daemon=True)
        self._thread.start()

    def submit(self, work: Work, on_outcome: OnOutcome) -> None:
        """Queue a work; `on_outcome` is called once its writes are durable, or with its error."""
        self._queue.put(_Job(work, asyncio.get_running_loop(), on_outcome))

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        """Commit jobs until `close` is called; the body of the thread."""
        db = self._connect_early()
        open_for_jobs = True
        while open_for_jobs:
            jobs, open_for_jobs = self._wait_for_jobs()
            if not jobs:
                continue
            try:
                db = db or connect(self._path)
                with using(db):
                    outcomes = _commit(SqliteStorage(db, self._path), jobs)
            except sqlite3.Error as error:
                outcomes = [as_ours(self._path, error)] * len(jobs)
            except Exception as error:  # noqa: BLE001  # the thread must live on, whatever it was
                outcomes = [error] * len(jobs)
            _deliver(jobs, outcomes)
        if db:
            db.close()

    def _connect_early(self) -> Connection | None:
        """Connect before there is work; a failure is met again, and reported, with the first."""
        try:
            return connect(self._path)
        except sqlite3.Error:
            return None

    def _wait_for_jobs(self) -> tuple[list[_Job], bool]:
        """Wait for a job, then take all that are queued; False once `close` was called."""
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


# -- one commit ----------------------------------------------------------------------------------


class _WorkFailed(Exception):
    """A work raised something: all works have to be run again, each in a savepoint."""


def _commit(storage: SqliteStorage, jobs: list[_Job]) -> list[Any]:
    """Run the works in one durable transaction; return what each returned or raised.

    Works seldom fail, and a savepoint for each would double the statements.  So they are run
    without savepoints first.  If one fails, everything is rolled back, and all are run again with
    savepoints, so that the error undoes only its own work.
    """
    works = [job.work for job in jobs]
    try:
        return _in_one_transaction(storage, works, _run_bare)
    except (_WorkFailed, AgentKitError):  # of a work, or of writing down what they did
        return _in_one_transaction(storage, works, _run_in_savepoint)


def _in_one_transaction(
    storage: SqliteStorage,
    works: list[Work],
    run: Callable[[SqliteStorage, JournalTransaction, Work], Any],
) -> list[Any]:
    """Run works by `run` and commit; whatever is raised undoes all of them."""
    storage.begin()
    try:
        tx = JournalTransaction(storage)
        outcomes = [run(storage, tx, work) for work in works]
        tx.flush()
        storage.commit()
    except BaseException:
        storage.rollback()
        raise
    return outcomes


def _run_bare(storage: SqliteStorage, tx: JournalTransaction, work: Work) -> Any:
    """Run a work; any error but SQLite's becomes _WorkFailed."""
    try:
        return work(tx)
    except sqlite3.Error:
        raise
    except Exception as error:
        raise _WorkFailed from error


def _run_in_savepoint(storage: SqliteStorage, tx: JournalTransaction, work: Work) -> Any:
    """Run one work in a savepoint; its error undoes it alone and is its outcome.

    An error of SQLite is none of the work's: it ends the whole transaction.
    """
    storage.begin_savepoint()
    try:
        outcome = work(tx)
        tx.flush()
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001  # the caller gets it; the thread must live on
        storage.undo_savepoint()
        tx.forget()
        outcome = error
    storage.end_savepoint()
    return outcome


def as_ours(path: Path, error: sqlite3.Error) -> AgentKitError:
    """Return our error for SQLite's: the file is damaged, or it cannot be written now."""
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return JournalDamaged(path, "the file itself", str(error))
    return StoreUnavailable(
        f"the state file {path} cannot be written: {error}",
        hint=f"check free disk space and permissions of {path.parent}; what was done is kept",
    )


# -- telling -------------------------------------------------------------------------------------


def _deliver(jobs: list[_Job], outcomes: list[Any]) -> None:
    """Tell of the outcomes, with one wake-up for each event loop: a wake-up costs a system call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[OnOutcome, Any]]] = {}
    for job, outcome in zip(jobs, outcomes, strict=True):
        by_loop.setdefault(job.loop, []).append((job.on_outcome, outcome))
    for loop, settled in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed, and nobody waits
            loop.call_soon_threadsafe(_tell, settled)


def _tell(settled: list[tuple[OnOutcome, Any]]) -> None:
    for on_outcome, outcome in settled:
        on_outcome(outcome)
