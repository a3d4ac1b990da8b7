"""Keeps SQLite safe across a fork: no transaction is under way, and the child closes everything.

SQLite remembers in its own memory what this process has locked.  A forked child inherits that
memory without the locks themselves.  If it opened the same file, SQLite would count on locks that
nobody holds, and wait for ever or damage the file (sqlite.org/howtocorrupt.html, section 2.6).
So this module delays a fork until no connection is in use, and the child closes the connections
that it inherited before it can open any of its own.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Connection(sqlite3.Connection):
    """A connection with a lock that is held while it is in use; see `journal.store.connect`."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]  # as sqlite3 passes them
        self.in_use = threading.RLock()
        _connections.add(self)


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
"""All connections of this process that are still referred to."""


@contextmanager
def using(db: Connection) -> Iterator[None]:
    """Keep this process from forking while the connection is at work."""
    with db.in_use:
        yield


@contextmanager
def closing(db: Connection) -> Iterator[Connection]:
    """Use a connection that is closed at the end, without a fork in between."""
    with db.in_use:
        try:
            yield db
        finally:
            db.close()


_held_for_fork: list[Connection] = []
"""The connections whose locks this process holds while it forks."""


def _before_fork() -> None:
    """Wait until no connection is in use, and keep it so until the fork is done."""
    # A list of its own: other threads may open connections meanwhile.
    _held_for_fork[:] = list(_connections)
    for db in _held_for_fork:
        db.in_use.acquire()


def _after_in_parent() -> None:
    """Let the connections be used again."""
    for db in _held_for_fork:
        db.in_use.release()
    _held_for_fork.clear()


def _after_in_child() -> None:
    """Close the connections that were inherited; the locks on them stay held for ever."""
    for db in _held_for_fork:
        with suppress(sqlite3.Error):
            db.close()
        _connections.discard(db)
    _held_for_fork.clear()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
