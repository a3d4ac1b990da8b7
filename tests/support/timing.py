"""How a test waits, and how much longer this machine takes than a quiet one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time


def slowness() -> float:
    """Return how much longer this machine takes now than one with nothing else to do, 1 at least.

    Told by a fresh interpreter that imports web3: 0.9 s on a quiet machine of two cores.
    """

    def taken() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import web3"], check=True)
        return time.perf_counter() - began

    return max(1.0, min(taken() for _ in range(2)) / 0.9)


async def until(condition: object, seconds: float = 10.0) -> None:
    """Wait until a callable returns something true."""
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
