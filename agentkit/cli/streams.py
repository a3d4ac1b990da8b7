"""Standard output and standard error of the command line."""

from __future__ import annotations

import io
import sys


def survive_any_encoding() -> None:
    """Have what an output cannot encode replaced: it must not end a run that was paid for."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
