"""What a slot's child does first: tie its life to its parent's and its pipes to the protocol."""

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


def tie(nice: int = 0) -> tuple[Requests, Callable[[Mapping[str, Any]], None]]:
    """Return the requests that the parent sends, and what answers them.

    An answer has the `id` of its request; one that is too long raises BrokenProtocol.

    The process ends when the parent does, also in the midst of work.  Standard output becomes
    standard error, so that what a library prints cannot be taken for an answer.
    """
    _die_with_parent()
    os.nice(nice)
    source, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  (its number is all we want)
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return _requests(source), lambda answer: framing.write(answers, answer, framing.MAX_ANSWER)


def _die_with_parent() -> None:
    """Ask Linux for the signal; elsewhere the end of the pipe is all there is.

    The kernel sends it when the *thread* that started this process ends.  That is the thread of
    the parent's event loop, without which the slot is of no use.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _requests(source: BinaryIO) -> Requests:
    """Read in a thread, so that the end of the pipe is seen while a task runs."""
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        try:
            while request := framing.read(source, framing.MAX_REQUEST):
                waiting.put(request)
        finally:
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return iter(waiting.get, {})
