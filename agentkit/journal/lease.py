"""Leases: one process at a time works on a run, and one call at a time on an effect.

A lease is the kernel's lock on a file.  The kernel frees it when the process ends, however that
happens.  So a killed run can be resumed at once, and no timeout has to be waited for.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from agentkit.errors import RunNotFound, RunPaused

_RUN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class Lease:
    """A lease on a run, held until it is closed or the process ends."""

    def __init__(self, folder: Path, run: str) -> None:
        """Take the lease; raises RunPaused, naming the owner, when another process has it.

        Raises RunNotFound for text that cannot be the name of a run.
        """
        path = _path(folder, run)
        folder.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = self._read_owner()
            self._file.close()
            watch = f"agentkit status {run} --watch"
            raise RunPaused(
                run,
                f"not here, process {owner} is working on it",
                watch,
                hint=f"watch it with `{watch}`",
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        _held.add(self)

    def drop_inherited(self) -> None:
        """Close a forked child's copy of the file; the lock would stay while any copy is open."""
        self._file.close()

    def _read_owner(self) -> str:
        """Return the number of the process that has the lease, "unknown" if it wrote none.

        It writes its number just after it takes the lock, so this waits a moment for it.
        """
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            self._file.seek(0)
            owner = self._file.read().strip()
            if owner:
                return owner
            time.sleep(0.005)
        return "unknown"

    def close(self) -> None:
        """Give the lease back."""
        if not self._file.closed:
            self._file.truncate(0)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class EffectLease:
    """A lease on an effect: of all calls with one key, here and in other processes, one has it.

    There is one effect for each call of a tool, so its file is deleted when the lease is given
    back.
    """

    def __init__(self, folder: Path, effect: str) -> None:
        self._path = _path(folder, f"effect-{effect}")
        self._file: IO[str] | None = None

    def try_take(self) -> bool:
        """Take the lease if nobody has it, without waiting; return whether it was taken."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False

        # Whoever had the lease may have deleted the file after it was opened here.  Then others
        # lock a new file of that name, and a lock on this one excludes nobody.
        if not _is_same_file(file, self._path):
            file.close()
            return False
        self._file = file
        _held.add(self)
        return True

    def drop_inherited(self) -> None:
        """Close a forked child's copy of the file, which its parent goes on using."""
        if self._file is not None:
            self._file.close()

    def close(self) -> None:
        """Give the lease back; does nothing where it was not taken, or in a forked child."""
        if self._file is None or self._file.closed:
            return
        self._path.unlink(missing_ok=True)  # before it is unlocked: later it may be another's file
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _is_same_file(file: IO[str], path: Path) -> bool:
    """Return whether an open file is the one that a path names now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


_held: weakref.WeakSet[Lease | EffectLease] = weakref.WeakSet()
"""All leases of this process that are still referred to."""


def _drop_inherited() -> None:
    """Close a forked child's copies of its parent's leases."""
    for lease in _held:
        lease.drop_inherited()


os.register_at_fork(after_in_child=_drop_inherited)


def _path(folder: Path, run: str) -> Path:
    """Return the file of a run's lease; raises RunNotFound for a name that would lead elsewhere."""
    if not _RUN_NAME.fullmatch(run):
        raise RunNotFound(f"there is no run {run[:64]!r}")
    return folder / f"{run}.lease"


def owner_of(folder: Path, run: str) -> str:
    """Return the number of the process that took a lease last, as it wrote it; "" for none."""
    try:
        owner = (folder / f"{run}.lease").read_text(errors="replace").strip()
    except OSError:
        return ""
    return owner if owner.isdecimal() else ""


def is_free(folder: Path, run: str) -> bool:
    """Return whether no process has the lease on a run; does not take it."""
    try:
        with _path(folder, run).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
