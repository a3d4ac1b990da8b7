"""Fails a unit test that opens a socket or starts a process.

The guard listens to the interpreter's audit events, which are raised below every library
(https://docs.python.org/3/library/audit_events.html), so that no client or server goes past it.
"""

from __future__ import annotations

import multiprocessing.process
import socket
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PROCESS_EVENTS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "subprocess.Popen",
}


class NotAUnitTest(AssertionError):
    """A test of the unit tier used what only an integration test may use."""


class Guard:
    """Refuses sockets and processes while it is on, and remembers what it refused.

    It remembers because the code under test may catch the exception and go on.
    """

    def __init__(self) -> None:
        self._on = False
        self._refused: list[str] = []
        sys.addaudithook(self._audit)  # there is no way to remove one, hence `_on`
        self._watch_multiprocessing()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raise NotAUnitTest, at once and again at the end, if something outside is reached."""
        self._refused = []
        self._on = True
        try:
            yield
        finally:
            self._on = False
        if self._refused:
            raise NotAUnitTest(self._refused[0])

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event in PROCESS_EVENTS:
            self._refuse(f"started a process ({event})")
        elif event.startswith("socket.") and not is_harmless(event):
            self._refuse(f"used a socket ({event})")

    def _refuse(self, what: str) -> None:
        told = f"a unit test {what}; tests that need this stand in tests/integration"
        self._refused.append(told)
        raise NotAUnitTest(told)

    def _watch_multiprocessing(self) -> None:
        """Watch `Process.start`: its server and spawn methods raise no audit event."""
        start = multiprocessing.process.BaseProcess.start

        def watched(process: multiprocessing.process.BaseProcess) -> None:
            if self._on:
                self._refuse("started a process (multiprocessing)")
            start(process)

        multiprocessing.process.BaseProcess.start = watched  # type: ignore[assignment, method-assign]


def is_harmless(event: str) -> bool:
    """Return whether a socket event reaches nothing outside of this process.

    An event loop makes a pair of connected sockets, to wake itself.  The name of this host is
    not asked of anybody.
    """
    if event == "socket.gethostname":
        return True
    return event == "socket.__new__" and called_by_socketpair()


def called_by_socketpair() -> bool:
    frame = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "socketpair" and code.co_filename == socket.__file__:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


GUARD = Guard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Watch the fixtures of a test; for the `conftest.py` of a folder without I/O."""
    with GUARD.watching():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Watch the test itself.

    What ends after it is not watched: with the last test of a session, that may be a fixture of
    another tier.
    """
    with GUARD.watching():
        return (yield)
