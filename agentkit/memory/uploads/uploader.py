"""Uploads the waiting segments of the outbox, one process of the wallet at a time."""

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
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0


class Uploader:
    """Sends the outbox along an upload path, and records why that fails.

    The same bytes give the same item, so after a lost answer they are simply sent again.  The
    reason of a failure is stored on disk, where `agentkit status` finds it, and logged when a row
    of failures begins.
    """

    def __init__(self, journal: Journal, outbox: Outbox, path: UploadPath) -> None:
        self._journal = journal
        self._outbox = outbox
        self._path = path
        self._one_at_a_time = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0

    async def send(self) -> None:
        """Upload everything that waits; raises StateError after recording the reason."""
        async with self._one_at_a_time:
            if not await self._outbox.waiting():
                return
            with await self._lease():
                # Read again: the process that had the lease before may have sent some of it.
                waiting = await self._outbox.waiting()
                try:
                    await self._path.send(waiting)
                except StateError as error:
                    await self._record_failure(error)
                    raise
                await self._record_success()

    async def is_due(self) -> bool:
        """Whether an item has waited long enough, and the pause after a failure is over."""
        if time.monotonic() < self._not_before:
            return False
        waiting = await self._outbox.waiting()
        now = await self._outbox.commit(lambda tx: tx.now)
        ages = [now - item.at / 1e6 for item in waiting]
        # A negative age means that the clock was set back; such an item is sent at once.
        return any(not 0 <= age < self._path.rest for age in ages)

    async def _lease(self) -> Lease:
        """Take the lease on uploads, so that no two processes pay for the same items."""
        give_up_at = time.monotonic() + LEASE_SECONDS
        while True:
            try:
                return self._journal.lease(LEASE)
            except RunPaused as taken:
                if time.monotonic() > give_up_at:
                    raise StoreUnavailable(
                        "another process of this wallet is uploading, and does not come to an end",
                        hint="run agentkit status",
                    ) from taken
            await asyncio.sleep(0.1)

    async def _record_failure(self, error: StateError) -> None:
        """Store why uploads fail, and wait twice as long after each failure, at random."""
        reason = f"Arweave upload paused: {error}; state is safe locally only"
        if not self._failures:
            log.warning("%s%s", reason, f" ({error.hint})" if error.hint else "")
        pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        self._not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311
        self._failures += 1
        await self._outbox.commit(lambda tx: tx.outbox.put_trouble(reason))

    async def _record_success(self) -> None:
        """Clear the reason of earlier failures, which another process may have stored."""
        if self._failures:
            log.warning("Arweave uploads go on")
        self._failures = 0
        self._not_before = 0.0
        if await self._outbox.commit(lambda tx: tx.outbox.trouble()):
            await self._outbox.commit(lambda tx: tx.outbox.put_trouble(""))
