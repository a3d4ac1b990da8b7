"""A pool in this process, and a look at the children that it starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from agentkit.pool.pool import Pool
from support.timing import limit

Find = Callable[[str], list[psutil.Process]]
"""What `children` gives."""


@pytest.fixture
def begun() -> list[str]:
    """The keys whose work has started, in order."""
    return []


@pytest.fixture
async def pool(tmp_path: Path, begun: list[str]) -> AsyncIterator[Pool]:
    pool = Pool(scratch=tmp_path / "pool", on_execute=begun.append)
    yield pool
    await pool.close()


@pytest.fixture
def children() -> Find:
    """Find our own living children whose command line holds a word, not those of the network."""

    def find(word: str) -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if lives_as(child, word)]

    return find


def lives_as(process: psutil.Process, word: str) -> bool:
    """Whether a process is alive and has a word in its command line."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and word in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended between two looks
        return False


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait for something to become true, at most ten seconds."""

    async def wait(true: Callable[[], object]) -> None:
        async with asyncio.timeout(limit(10)):
            while not true():
                await asyncio.sleep(0.01)

    return wait
