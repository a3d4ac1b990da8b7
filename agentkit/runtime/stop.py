"""Whether a run has to stop, and the pause that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from agentkit.errors import RunPaused
from agentkit.graph.registry import Node
from agentkit.journal.run_state import RunState
from agentkit.runtime import hints

T = TypeVar("T")


class StopSignal:
    """Tells everything that works on a run when to stop, in two degrees.

    `close` lets attempts that are under way finish, and no new one starts.  `stop` also ends every
    wait at once; attempts that can be looked up later stay open at their providers.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._stopped = asyncio.Event()
        self._closed = False

    @property
    def is_set(self) -> bool:
        """Whether the run was asked to stop at once."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Stop at once."""
        self._stopped.set()

    def close(self) -> None:
        """Start no further attempt: another node has ended the run."""
        self._closed = True

    def check(self) -> None:
        """Raise RunPaused unless a new attempt may start."""
        if self.is_set:
            raise self.paused("it was asked to stop")
        if self._closed:
            raise self.paused("another node has stopped the run")

    async def or_stop(self, waiting: Awaitable[T]) -> T:
        """Wait for something; raises RunPaused as soon as the run is asked to stop."""
        task = asyncio.ensure_future(waiting)
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self.paused("it was asked to stop")
        finally:
            stopped.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def sleep(self, seconds: float) -> None:
        """Sleep; raises RunPaused as soon as the run is asked to stop."""
        await self.or_stop(asyncio.sleep(seconds))

    def paused(
        self,
        why: str,
        *,
        uncertain: bool = False,
        flag: str = "",
        hint: str = "",
        mend: Node | None = None,
    ) -> RunPaused:
        """Return the pause of this run; the caller raises or records it.

        `uncertain`: nobody knows whether a purchase was made.  `flag` is added to the command that
        resumes the run.  `mend` is the node whose function or file a person has to mend first;
        the hint says how, if none is given.
        """
        command = " ".join(filter(None, [hints.command_for(self._run, uncertain=uncertain), flag]))
        if mend is not None and not hint:
            hint = hints.mend(self._run, mend)
        name = mend.name if mend is not None else ""
        return _pause(self._run, why, command, uncertain=uncertain, hint=hint, mend=name)


def pause_of(state: RunState) -> RunPaused:
    """Return the pause that a run's journal holds: what it waits for, and what to do about it."""
    command = state.command or hints.command_for(state.run, uncertain=state.uncertain)
    return _pause(
        state.run,
        state.why,
        command,
        uncertain=state.uncertain,
        hint=state.hint,
        mend=state.mend,
    )


def _pause(run: str, why: str, command: str, *, uncertain: bool, hint: str, mend: str) -> RunPaused:
    return RunPaused(run, why, command, uncertain=uncertain, hint=hint, mend=mend)
