"""Moments at which an agent that runs unattended begins again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from agentkit.errors import ConfigError


@dataclass(frozen=True)
class Tick:
    """A moment of a schedule, in unix seconds, and how many before it were missed."""

    at: float
    missed: int = 0


async def every(period: timedelta) -> AsyncIterator[Tick]:
    """Yield now and then once every period; moments that work ran over are counted, not made up."""
    seconds = period.total_seconds()
    if seconds <= 0:
        raise ConfigError("a period is longer than nothing", hint="pass timedelta(minutes=30)")
    due, missed = time.time(), 0
    while True:
        yield Tick(due, missed)
        behind = max(0, int((time.time() - due) // seconds))
        due, missed = due + seconds * (behind + 1), behind
        await asyncio.sleep(max(0.0, due - time.time()))
