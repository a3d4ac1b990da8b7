"""Moments at which an agent that runs unattended begins again."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from agentkit.errors import ConfigError, WrongInput
from agentkit.file_io import read_bytes, write_text

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,63}")
LONGEST_FILE = 100
"""Bytes of a file that says when a schedule came last."""


@dataclass(frozen=True)
class Tick:
    """A moment of a schedule, in unix seconds, and how many before it were missed."""

    at: float
    missed: int = 0


folder_of_agent: ContextVar[Path | None] = ContextVar("folder_of_agent", default=None)
"""Where the agent that is open here (`async with`) keeps the last ticks of its schedules."""


async def every(
    period: timedelta, *, since: float | None = None, name: str = ""
) -> AsyncIterator[Tick]:
    """Yield once every period; moments that work ran over are counted, not made up.

    Inside `async with Agent...` the schedule goes on across restarts, as `Agent.every` says.
    Elsewhere the first tick is now, or follows from `since`: the tick at which an earlier process
    began its last work.  That schedule's next moment is waited for; where it has passed, the first
    tick is the newest of those that passed, and the others were missed.
    """
    folder = folder_of_agent.get()
    if folder is not None and since is None:
        ticks = Schedule(folder, name or name_of(period)).every(period)
    else:
        ticks = _ticks(period, since)
    async for tick in ticks:
        yield tick


def name_of(period: timedelta) -> str:
    """Return the name of a schedule that was given none: schedules of one period share it.

    Raises ConfigError for what is not a period.
    """
    return f"every-{_seconds_of(period):g}s"


def _seconds_of(period: object) -> float:
    if not isinstance(period, timedelta):
        raise ConfigError(f"{period!r} is not a period", hint="pass timedelta(minutes=30)")
    return period.total_seconds()


async def _ticks(period: timedelta, since: float | None) -> AsyncIterator[Tick]:
    """Yield ticks for ever; `since` is the last one of an earlier process."""
    seconds = _seconds_of(period)
    if seconds <= 0:
        raise ConfigError("a period is longer than nothing", hint="pass timedelta(minutes=30)")
    due, missed = _first(seconds, since)
    while True:
        await asyncio.sleep(max(0.0, due - time.time()))
        yield Tick(due, missed)
        due, missed = _next(due, seconds)


def _first(seconds: float, since: float | None) -> tuple[float, int]:
    """Return the first moment and how many were missed; a time to come is no earlier tick."""
    now = time.time()
    if since is None or not since <= now:
        return now, 0
    passed = int((now - since) // seconds)
    return (since + seconds * passed, passed - 1) if passed else (since + seconds, 0)


def _next(due: float, seconds: float) -> tuple[float, int]:
    """Return the moment that follows the work of a tick, and how many it ran over."""
    behind = max(0, int((time.time() - due) // seconds))
    return due + seconds * (behind + 1), behind


class Schedule:
    """A schedule by name that goes on across restarts: a file in `folder` has its last tick.

    The tick is written before its work begins, so work that ends the process is not begun again
    at every start.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Raises ConfigError for what is not a name."""
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is not a name for a schedule",
                hint="use letters, digits, `_`, `.` and `-`",
            )
        self._path = folder / name

    async def every(self, period: timedelta) -> AsyncIterator[Tick]:
        """Yield as `every` does, from the last tick of an earlier process on."""
        since = await asyncio.to_thread(self._read)
        async for tick in _ticks(period, since):
            await asyncio.to_thread(self._write, tick.at)
            yield tick

    def _read(self) -> float | None:
        """Return the last tick; None where there is none, or nothing that could be one."""
        with suppress(WrongInput, ValueError):
            at = float(read_bytes(self._path, LONGEST_FILE))
            return at if math.isfinite(at) and at >= 0 else None
        return None

    def _write(self, at: float) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._path, f"{at!r}\n")
