"""The uploader: what waits in the outbox goes up, by one process of the wallet at a time."""

from __future__ import annotations

import asyncio
import logging
import random
import time

from agentkit.errors import RunPaused, StateError, StoreUnavailable
from agentkit.journal.journal import Journal
from agentkit.journal.lease import Lease
from agentkit.memory.uploads.outbox import Outbox
from agentkit.memory.uploads.upload_paths import UploadPath

log = logging.getLogger("agentkit")

LEASE = "uploads"
LEASE_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0


class Uploader:
    """Sends the outbox along a path, and remembers why it cannot.

    The same bytes again are the same item, so answers may get lost.  Trouble is on disk, for
    other processes to show, and in the log once for each time that it begins.
    """

    def __init__(self, journal: Journal, outbox: Outbox, path: UploadPath) -> None:
        self._journal = journal
        self._outbox = outbox
        self._path = path
        self._one_at_a_time = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0

    async def send(self) -> None:
        """Hand everything over now; raises StateError, the trouble being written down."""
        async with self._one_at_a_time:
            if not await self._outbox.waiting():
                return
            with await self._lease():
                try:
                    await self._path.send(await self._outbox.waiting())
                except StateError as error:
                    await self._failed(error)
                    raise
                await self._done()

    async def is_due(self) -> bool:
        """Whether something has gathered for long enough, and the last try was not just now."""
        if time.monotonic() < self._not_before:
            return False
        waiting = await self._outbox.waiting()
        now = await self._outbox.commit(lambda tx: tx.now)
        ages = [now - item.at / 1e6 for item in waiting]
        return any(not 0 <= age < self._path.rest for age in ages)  # or the clock went back

    async def _lease(self) -> Lease:
        """Take the claim on uploads, so that no two processes pay for the same items."""
        until = time.monotonic() + LEASE_SECONDS
        while True:
            try:
                return self._journal.lease(LEASE)
            except RunPaused as taken:
                if time.monotonic() > until:
                    raise StoreUnavailable(
                        "another process of this wallet is uploading, and does not come to an end",
                        hint="run agentkit status",
                    ) from taken
            await asyncio.sleep(0.1)

    async def _failed(self, wrong: StateError) -> None:
        said = f"Arweave upload paused: {wrong}; state is safe locally only"
        if not self._failures:
            log.warning("%s%s", said, f" ({wrong.hint})" if wrong.hint else "")
        pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        self._not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311
        self._failures += 1
        await self._outbox.commit(lambda tx: tx.outbox.put_trouble(said))

    async def _done(self) -> None:
        if self._failures:
            log.warning("Arweave uploads go on")
        self._failures, self._not_before = 0, 0.0
        if await self._outbox.commit(lambda tx: tx.outbox.trouble()):
            await self._outbox.commit(lambda tx: tx.outbox.put_trouble(""))
