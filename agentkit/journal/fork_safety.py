"""SQLite across a fork: connections are idle when it happens, and closed in the child.

SQLite remembers in its own memory what this process has locked.  A forked child inherits that
memory without the locks: a new connection of its own to the same file would believe in them, and
wait for ever or damage the file (sqlite.org/howtocorrupt.html, section 2.6).  So no transaction is
under way at a fork, and the child closes what it inherited before it can open anything.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Connection(sqlite3.Connection):
    """A connection that knows whether it is in use; made by `journal.store.connect`."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]  # as sqlite3 passes them
        self.in_use = threading.RLock()
        _connections.add(self)


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


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


_waiting: list[Connection] = []


def _before_fork() -> None:
    _waiting[:] = list(_connections)
    for db in _waiting:
        db.in_use.acquire()


def _after_in_parent() -> None:
    for db in _waiting:
        db.in_use.release()
    _waiting.clear()


def _after_in_child() -> None:
    for db in _waiting:
        with suppress(sqlite3.Error):
            db.close()
        _connections.discard(db)
    _waiting.clear()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
