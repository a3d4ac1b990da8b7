"""The journal of one wallet: open it, commit works to it, read it, check it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agentkit.errors import JournalDamaged, StoreUnavailable
from agentkit.journal import integrity, state_file
from agentkit.journal.fork_safety import closing
from agentkit.journal.lease import Lease, is_free, owner_of
from agentkit.journal.migrations import migrate
from agentkit.journal.rows import Row
from agentkit.journal.store import SCHEMA_VERSION, SqliteStorage, connect
from agentkit.journal.transaction import JournalTransaction
from agentkit.journal.writer import Writer, as_ours
from agentkit.market.seams import Event

T = TypeVar("T")


class Journal:
    """A wallet's state file, which several processes may share; each has one writer thread.

    `await commit(work)` returns what `work(tx)` returned, once what it wrote is durable.  A work
    reads, signs and appends; it does no I/O and awaits nothing.  If it raises, it alone is undone.
    `wrote` says whether this process has appended anything.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "state.db"
        self.wrote = False
        self._records_checked = False
        self._writer = Writer(self.path)

    @classmethod
    async def open(cls, home: Path, address: str) -> Journal:
        """Open or make the state file of a wallet in the folder `home`.

        A file of an earlier schema is migrated, see `journal.migrations`; one of this schema is
        not written to.  Raises StoreUnavailable when it cannot be opened, StateTooNew when a newer
        version wrote it, JournalDamaged when something else did, WrongKey when it is another
        wallet's.
        """
        try:
            await asyncio.to_thread(_prepare, home, address)
        except OSError as error:
            raise StoreUnavailable(
                f"the folder {home} cannot be used: {error.strerror}",
                hint="set AGENTKIT_HOME to a folder that can be written",
            ) from error
        except sqlite3.Error as error:
            raise as_ours(home / "state.db", error) from error
        return cls(home)

    # -- writing ---------------------------------------------------------------------------------

    def commit(self, work: Callable[[JournalTransaction], T]) -> asyncio.Future[T]:
        """Run a work in a transaction; its result is there when what it wrote is on disk.

        Cancellation does not undo it: a work that was queued is written.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.post(work, partial(_resolve, future))
        return future

    def post(
        self, work: Callable[[JournalTransaction], Any], on_outcome: Callable[[Any], None]
    ) -> None:
        """Run a work as `commit` does, and call `on_outcome` on this loop with its outcome.

        That is what the work returned, or the exception that it or the commit raised.
        """
        self._writer.submit(partial(self._run_work, work), on_outcome)

    def _run_work(self, work: Callable[[JournalTransaction], T], tx: JournalTransaction) -> T:
        """Run a work, and note whether it wrote anything; in the writer's thread."""
        if not self._records_checked:
            # Once in each process, before anything is decided by the records.
            tx.check_records()
            self._records_checked = True
        before = tx.appended
        outcome = work(tx)
        self.wrote = self.wrote or tx.appended > before
        return outcome

    # -- reading ---------------------------------------------------------------------------------

    async def rows(self, stream: str, after: int = 0, most: int = -1) -> list[Row]:
        """Return up to `most` rows of a stream after number `after`; -1 is no limit."""
        return await self.commit(lambda tx: list(tx.rows(stream, after, most)))

    async def events(self, stream: str, after: int, most: int) -> list[tuple[int, Event]]:
        """Return up to `most` events of a stream after number `after`, each with its number."""
        return [(row.seq, row.event()) for row in await self.rows(stream, after, most)]

    async def history(self, stream: str) -> list[Event]:
        """Return all events of a stream, its chain checked; raises JournalDamaged."""

        def read(tx: JournalTransaction) -> tuple[list[Event], tuple[int, bytes], list[Row]]:
            tx.head(stream)  # raises JournalDamaged where the newest events are missing
            return tx.earlier(stream), tx.start(stream), list(tx.rows(stream))

        earlier, start, rows = await self.commit(read)
        # Hashing and parsing take long: not in the writer's thread, and not on the loop.
        return [*earlier, *await asyncio.to_thread(self._checked_events, start, rows)]

    def _checked_events(self, start: tuple[int, bytes], rows: list[Row]) -> list[Event]:
        seq, before = start
        chain = integrity.check_chain(self.path, rows, before, seq)
        return [integrity.read_row(self.path, row) for row in chain]

    async def checked(self, run: str) -> list[Event]:
        """Return all events of a run, its chain and the wallet's checked; raises JournalDamaged."""
        return await asyncio.to_thread(_check_run, self.path, run)

    async def check(self) -> int:
        """Check every row of the file and return the number of events; raises JournalDamaged."""
        return await asyncio.to_thread(_check, self.path)

    # -- who works on a run ----------------------------------------------------------------------

    def lease(self, run: str) -> Lease:
        """Take the lease on a run; raises RunPaused when another process has it."""
        return Lease(self.home / "leases", run)

    def owner(self, run: str) -> str:
        """Return the number of the process that works on a run, "" for none."""
        return "" if self.is_left(run) else owner_of(self.home / "leases", run)

    def is_left(self, run: str) -> bool:
        """Return whether no process works on a run."""
        return is_free(self.home / "leases", run)

    async def close(self) -> None:
        """Write what is queued and close."""
        await asyncio.to_thread(self._writer.close)


def _resolve(future: asyncio.Future[Any], outcome: Any) -> None:
    """Set the outcome of a future, unless whoever waited for it was cancelled."""
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _prepare(home: Path, address: str) -> None:
    """Make the state file of a wallet, or migrate it, or check that it is one of this schema."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / "state.db"
    meta = state_file.read_meta(path)
    if meta is None:
        state_file.make(path, address)
        meta = state_file.read_meta(path) or {}
    state_file.check_writable(path)
    state_file.check_wallet(path, meta, address)
    if state_file.schema_of(path, meta) < SCHEMA_VERSION:
        migrate(path)
        meta = state_file.read_meta(path) or {}
    state_file.check_instance(path, meta)


@contextmanager
def _reading(path: Path) -> Iterator[SqliteStorage]:
    """Open the state file a second time, to read one state of it beside the writer."""
    try:
        with closing(connect(path)) as db:
            storage = SqliteStorage(db, path)
            storage.begin_reading()
            yield storage
    except sqlite3.Error as error:
        raise as_ours(path, error) from error


def _check_run(path: Path, run: str) -> list[Event]:
    with _reading(path) as storage:
        return integrity.check_run(JournalTransaction(storage), run)


def _check(path: Path) -> int:
    """Check the pages of the file, then all rows; return the number of events."""
    with _reading(path) as storage:
        verdict = storage.check_file()
        if verdict != "ok":
            raise JournalDamaged(path, "the file itself", verdict)
        count = integrity.check(JournalTransaction(storage))
        storage.outbox.check()
        return count
