"""The log of one run: events become durable, then part of its state, then known to followers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from agentkit.journal.journal import Journal
from agentkit.journal.run_state import RunState
from agentkit.market.seams import Event, Transaction

T = TypeVar("T")

Work = Callable[[Transaction], tuple[Sequence[Event], T]]
"""What happens in one transaction: returns the run's events, and a value for the caller."""


class RunLog:
    """Writes the events of one run, and is the only writer of its `RunState`.

    Every write takes the same three steps: the events are committed to the journal, `state` applies
    them, and followers are woken.  So whatever `state` says is on disk.
    """

    def __init__(self, journal: Journal, state: RunState) -> None:
        self._journal = journal
        self.state = state
        self.changed = asyncio.Event()

    @property
    def run(self) -> str:
        """The id of the run, which is also the name of its stream."""
        return self.state.run

    async def append(self, *events: Event) -> None:
        """Commit events by themselves; raises StateError when the journal cannot be written."""
        await self.commit(lambda tx: (events, None))

    async def commit(self, work: Work[T]) -> T:
        """Run `work` in one transaction, append the events that it returns, and return its value.

        Whatever `work` raises undoes the transaction and is raised here.
        """
        writing = asyncio.ensure_future(self._commit(work))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The transaction goes on without us and may become durable. The state has to hear of it
            # before this task ends, or the same purchase could be opened a second time.
            await asyncio.wait([writing])
            raise

    async def _commit(self, work: Work[T]) -> T:
        """Commit, then apply; never cancelled in between, see `commit`."""

        def append_all(tx: Transaction) -> tuple[Sequence[Event], T]:
            events, value = work(tx)
            for event in events:
                tx.append(self.run, event)
            return events, value

        events, value = await self._journal.commit(append_all)
        self._apply(events)
        return value

    def post(
        self,
        work: Callable[[Transaction], None],
        events: Sequence[Event],
        done: Callable[[Exception | None], None],
    ) -> None:
        """Commit as `commit` does, but without waiting; `done` is called on the event loop.

        It gets None once the events are durable and applied, or the error that undid them.  Many
        small nodes are recorded this way, because a task for each would cost more than the node.
        """

        def append_all(tx: Transaction) -> None:
            work(tx)
            for event in events:
                tx.append(self.run, event)

        def committed(error: Exception | None) -> None:
            if error is None:
                self._apply(events)
            done(error)

        self._journal.post(append_all, committed)

    def _apply(self, events: Sequence[Event]) -> None:
        for event in events:
            self.state.apply(event)
        self.announce()

    def announce(self) -> None:
        """Wake every follower; each waits for its own next change, so the event is replaced."""
        self.changed.set()
        self.changed = asyncio.Event()
