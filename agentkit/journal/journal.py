"""The journal of one wallet: open it, commit works to it, read it, check it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agentkit.errors import JournalDamaged, StoreUnavailable
from agentkit.journal import integrity, state_file
from agentkit.journal.fork_safety import closing
from agentkit.journal.lease import Lease, is_free, owner_of
from agentkit.journal.migrations import migrate
from agentkit.journal.store import SCHEMA_VERSION, Row, Tx, connect
from agentkit.journal.writer import Writer, as_ours
from agentkit.market.seams import Event

T = TypeVar("T")


class Journal:
    """A wallet's state file, shared by processes; one writer thread in each.

    `await commit(work)` returns what `work(tx)` returned once it is durable.  A work reads, signs
    and appends; it does no I/O and awaits nothing, and its error undoes it alone.  `wrote` says
    whether this process has appended anything.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "state.db"
        self.wrote = False
        self._whole = False
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
        except OSError as wrong:
            raise StoreUnavailable(
                f"the folder {home} cannot be used: {wrong.strerror}",
                hint="set AGENTKIT_HOME to a folder that can be written",
            ) from wrong
        except sqlite3.Error as wrong:
            raise as_ours(home / "state.db", wrong) from wrong
        return cls(home)

    def commit(self, work: Callable[[Tx], T]) -> asyncio.Future[T]:
        """Run a work in the writer's transaction; what is returned is done when it is on disk.

        Not undone by cancellation: a work that was queued is written.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.post(work, partial(_resolve, future))
        return future

    def post(self, work: Callable[[Tx], Any], told: Callable[[Any], None]) -> None:
        """Run a work as `commit` does; `told` is called on this loop with what it came to.

        That is what the work returned, or the exception that it or the writing of it raised.
        """
        self._writer.submit(partial(self._noting, work), told)

    def _noting(self, work: Callable[[Tx], T], tx: Tx) -> T:
        if not self._whole:  # once in each process, before anything is decided by the records
            tx.check_records()
            self._whole = True
        before = tx.appended
        outcome = work(tx)
        self.wrote = self.wrote or tx.appended > before
        return outcome

    async def rows(self, stream: str, after: int = 0, most: int = -1) -> list[Row]:
        """Return a stream's rows after number `after`."""
        return await self.commit(lambda tx: list(tx.rows(stream, after, most)))

    async def history(self, stream: str) -> list[Event]:
        """Return all events of a stream, its chain checked; raises JournalDamaged."""

        def look(tx: Tx) -> tuple[list[Event], tuple[int, bytes], list[Row]]:
            tx.head(stream)  # raises JournalDamaged where the newest events are missing
            return tx.earlier(stream), tx.start(stream), list(tx.rows(stream))

        return await asyncio.to_thread(self._read, *await self.commit(look))

    def _read(self, earlier: list[Event], start: tuple[int, bytes], rows: list[Row]) -> list[Event]:
        seq, before = start
        chain = integrity.chained(self.path, rows, before, seq)
        return [*earlier, *(integrity.readable(self.path, row) for row in chain)]

    async def checked(self, run: str) -> list[Event]:
        """Return all events of a run, its chain and the wallet's checked; raises JournalDamaged."""
        return await asyncio.to_thread(_check_run, self.path, run)

    async def events(self, stream: str, after: int, most: int) -> list[tuple[int, Event]]:
        """Return up to `most` events of a stream after number `after`, each with its number."""
        return [(row.seq, row.event()) for row in await self.rows(stream, after, most)]

    def lease(self, run: str) -> Lease:
        """Take the claim on a run; raises RunPaused when another process has it."""
        return Lease(self.home / "leases", run)

    def owner(self, run: str) -> str:
        """Return the number of the process that works on a run, "" for none."""
        return "" if self.is_left(run) else owner_of(self.home / "leases", run)

    def is_left(self, run: str) -> bool:
        """Whether no process works on a run."""
        return is_free(self.home / "leases", run)

    async def check(self) -> int:
        """Check every row of the file and return the number of events; raises JournalDamaged."""
        return await asyncio.to_thread(_check, self.path)

    async def close(self) -> None:
        """Write what is queued and close."""
        await asyncio.to_thread(self._writer.close)


def _resolve(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _prepare(home: Path, address: str) -> None:
    """Have the state file of a wallet there, in the current schema."""
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


def _check_run(path: Path, run: str) -> list[Event]:
    try:
        with closing(connect(path)) as db:
            return integrity.check_run(db, path, run)
    except sqlite3.Error as wrong:
        raise as_ours(path, wrong) from wrong


def _check(path: Path) -> int:
    try:
        with closing(connect(path)) as db:
            (verdict,) = db.execute("pragma quick_check").fetchone()
            if verdict != "ok":
                raise JournalDamaged(path, "the file itself", verdict)
            return integrity.check(db, path)
    except sqlite3.Error as wrong:
        raise as_ours(path, wrong) from wrong
