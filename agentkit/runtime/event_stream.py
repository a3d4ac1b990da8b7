"""Following the events of a run, whichever process has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Protocol

from agentkit.journal.journal import Journal
from agentkit.market.seams import Event
from agentkit.runtime.history import read
from agentkit.runtime.run_log import RunLog

EVENTS_AT_ONCE = 500
"""Events that a follower reads in one transaction."""

POLL_SECONDS = 0.5
"""Seconds between looks at a run of another process."""


class Followed(Protocol):
    """A run whose events are followed."""

    async def has_ended(self) -> bool:
        """Return whether no further event will come; called before each reading."""

    async def wait(self) -> None:
        """Wait until there may be more than at the last call of `has_ended`."""


class OwnRun:
    """A run of this process: its log says when there is more."""

    def __init__(self, log: RunLog, task: asyncio.Task[None]) -> None:
        self._log, self._task = log, task
        self._changed = log.changed

    async def has_ended(self) -> bool:
        self._changed = self._log.changed  # before the reading, so that no change is missed
        return self._task.done()

    async def wait(self) -> None:
        waiter = asyncio.ensure_future(self._changed.wait())
        await asyncio.wait([waiter, self._task], return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()


class AnyRun:
    """A run of some process; without `watch` it is read once, as far as it has come."""

    def __init__(self, journal: Journal, run: str, *, watch: bool) -> None:
        self._journal = journal
        self._run = run
        self._watch = watch

    async def has_ended(self) -> bool:
        state = await read(self._journal, self._run)
        return not self._watch or state.outcome != "running"

    async def wait(self) -> None:
        await asyncio.sleep(POLL_SECONDS)


async def follow(journal: Journal, run: str, followed: Followed) -> AsyncIterator[Event]:
    """Yield the events of a run from its first, some hundreds at a time, until it has ended."""
    position = 0
    while True:
        ended = await followed.has_ended()  # asked once for all pages: it may read the whole run
        while events := await journal.events(run, position, EVENTS_AT_ONCE):
            for position, event in events:  # noqa: B007  # it is where to go on from
                for part in event.parts():
                    yield part
        if ended:
            return
        await followed.wait()


async def event_lines(journal: Journal, run: str, *, watch: bool) -> AsyncIterator[str]:
    """Yield the events of any run as `Run.lines` does, with `watch` until it ends or pauses.

    Raises RunNotFound, JournalDamaged.
    """
    async for event in follow(journal, run, AnyRun(journal, run, watch=watch)):
        yield line_of(event)


def line_of(event: Event) -> str:
    """Return an event as one line of JSON."""
    fields = json.loads(event.encode())
    return json.dumps({"event": event.stored_name, **fields}, ensure_ascii=False)
