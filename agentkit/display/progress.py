"""Bytes that arrive: one line of a terminal that is redrawn, or a few lines of a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

TERMINAL_SECONDS, LOG_SECONDS = 0.1, 5.0
"""The shortest time between two reports.  A log cannot redraw its line, so it gets few."""


def show_progress(verb: str, stream: TextIO) -> Callable[[str, int, int], None]:
    """Return a function that shows on `stream` how much of a named thing has arrived.

    It takes the name, the bytes so far and the bytes in all.  Both are 0 before anything has
    arrived.  They are equal, and not 0, when everything is there.
    """
    is_terminal = stream.isatty()
    interval = TERMINAL_SECONDS if is_terminal else LOG_SECONDS
    next_report = 0.0

    def show(name: str, received: int, total: int) -> None:
        """Print how far a transfer is, not more often than every interval."""
        nonlocal next_report
        complete = received == total > 0
        under_way = 0 < received < total
        if under_way and time.monotonic() < next_report:
            return

        next_report = time.monotonic() + interval
        line = f"{verb} {name}{_how_far(received, total)}"
        if is_terminal:
            stream.write(f"\r{line:<60}" + ("\n" if complete else ""))
        else:
            stream.write(f"{line}\n")
        stream.flush()

    return show


def _how_far(received: int, total: int) -> str:
    if not total:
        return " (once; it stays on this machine)"
    if received == total:
        return ": done"
    return f": {received >> 20} of {total >> 20} MiB, {100 * received // total} %"
