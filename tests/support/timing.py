"""How tests wait: for a condition, never for a time; and how long at most.

Every limit of a test is given for a machine with nothing else to do.  `AGENTKIT_TEST_SLOWNESS=4`
multiplies them all, for a machine that is slow or busy; so it does with pytest's own timeout.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SLOWNESS = max(1.0, float(os.environ.get("AGENTKIT_TEST_SLOWNESS", "1")))
"""What the limits are multiplied by.  Read here: fixtures take such variables away."""

PATIENCE = 30.0
"""Seconds after which what should have become true is taken never to become so."""


def limit(seconds: float) -> float:
    """Return a time limit, in seconds, as it is on this machine."""
    return seconds * SLOWNESS


def measured_slowness() -> float:
    """Return how much longer this machine takes now than one with nothing else to do, 1 at least.

    For tests that assert how fast something is.  Told by a fresh interpreter that imports web3:
    0.9 s on a quiet machine of two cores.
    """

    def taken() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import web3"], check=True)
        return time.perf_counter() - began

    return max(SLOWNESS, min(taken() for _ in range(2)) / 0.9)


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a callable returns something true; raises TimeoutError after `seconds`."""
    async with asyncio.timeout(limit(seconds)):
        while not condition():
            await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait as `until` does, in a test without an event loop."""
    deadline = time.monotonic() + limit(seconds)
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition} did not become true in {limit(seconds)} s")
        time.sleep(0.01)


def accepts_connections(path: Path) -> bool:
    """Return whether a server listens at a unix socket: its file is there before it does."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
