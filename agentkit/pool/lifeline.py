"""What a slot's child does first: tie its life to its parent's and its pipes to the protocol."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TextIO


def tie(nice: int = 0) -> tuple[Iterator[str], TextIO]:
    """Return the lines that the parent sends and the stream of answers to it.

    The process ends when the parent does, also in the midst of work.  Standard output becomes
    standard error, so that what a library prints cannot be taken for an answer.
    """
    _die_with_parent()
    os.nice(nice)
    source, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  (its number is all we want)
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return _lines(source), answers


def _die_with_parent() -> None:
    """Ask Linux for the signal; elsewhere the end of the pipe is all there is.

    The kernel sends it when the *thread* that started this process ends.  That is the thread of
    the parent's event loop, without which the slot is of no use.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _lines(source: TextIO) -> Iterator[str]:
    """Read in a thread, so that the end of the pipe is seen while a task runs."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in source:
            waiting.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return iter(waiting.get, "")
