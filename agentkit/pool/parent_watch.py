"""Binds a child process to its parent: it ends with the parent, and its pipes carry requests."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from agentkit import framing

Requests = Iterator[dict[str, Any]]


def bind_to_parent(nice: int = 0) -> tuple[Requests, Callable[[Mapping[str, Any]], None]]:
    """Return the requests of the parent, and the function that sends an answer.

    An answer must have the `id` of its request; one that is too long raises BrokenProtocol.

    The process ends when the parent does, even while it works.  Standard output is redirected to
    standard error, so that text which a library prints cannot be taken for an answer.
    """
    _die_with_parent()
    os.nice(nice)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as empty:  # noqa: PTH123  (only its number is needed)
        os.dup2(empty.fileno(), 0)
    os.dup2(2, 1)
    return _read_requests(requests), lambda answer: framing.write(
        answers, answer, framing.MAX_ANSWER
    )


def _die_with_parent() -> None:
    """Have Linux kill this process when its parent ends; elsewhere only the pipe's end tells.

    The kernel sends the signal when the *thread* that started this process ends.  That is the
    thread of the parent's event loop, without which the slot is useless.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _read_requests(source: BinaryIO) -> Requests:
    """Return the requests in a pipe; the process exits at the pipe's end.

    A thread reads them, so that the end is noticed even while a task runs.
    """
    received: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        try:
            while request := framing.read(source, framing.MAX_REQUEST):
                received.put(request)
        finally:
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    end_marker: dict[str, Any] = {}  # never sent
    return iter(received.get, end_marker)
