"""Plain text: aligned columns, durations, times."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime

_CONTROLS = re.compile(
    r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""What moves the cursor, begins an escape sequence (ECMA-48), or reverses text (Unicode UAX 9)."""


def printable(text: str) -> str:
    r"""Return text with control characters written out: `\x1b[2J` instead of an empty screen.

    Names, errors and answers are written by providers, folders and files, and could otherwise paint
    over what a person reads before saying yes.  Newlines and tabs stay.
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return text as `printable` has it, in one line."""
    return " ".join(printable(text).split())


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return rows as aligned columns; `right` numbers the columns set flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: `1m 40s`, `2h 00m`."""
    if not math.isfinite(seconds):
        return "unknown"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s" if seconds >= 1 or not seconds else "<1s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def clock(at: float) -> str:
    """Return a moment as local wall time, `unknown` for one beyond all calendars."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%H:%M")
    except (OverflowError, ValueError, OSError):
        return "unknown"
