"""Blocking twins of the agent's verbs, for scripts and notebooks.

One thread with the only second event loop, and the one default agent on it, made from config at
the first call and closed when the process ends.  A forked child gets its own at its first call.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  # see Background
import contextlib
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from agentkit.agent import Agent, Graph
from agentkit.journal.records import Run as RunRecord
from agentkit.journal.run_state import RunState
from agentkit.market.plan import Plan
from agentkit.runtime.result import RunResult
from agentkit.user_values import check_keywords

T = TypeVar("T")

CLOSE_SECONDS = 30.0


class Background:
    """An event loop in a daemon thread, with the default agent."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._agent: Agent | None = None
        self._opening = asyncio.Lock()
        thread = threading.Thread(target=self.loop.run_forever, name="agentkit-sync", daemon=True)
        thread.start()
        # Plain atexit comes after thread pools are shut, and sealing the journal needs them; they
        # are registered with their import, and ends are called newest first.
        threading._register_atexit(self.close)  # type: ignore[attr-defined]

    async def agent(self) -> Agent:
        """Return the default agent, opened from config the first time."""
        async with self._opening:
            if self._agent is None:
                self._agent = await Agent.from_config().__aenter__()
            return self._agent

    def close(self) -> None:
        """Seal, settle and close the default agent; a forked child leaves it to its parent."""
        if os.getpid() != self._process:
            return
        if self._agent is not None:
            closing = self._agent.__aexit__(None, None, None)
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(closing, self.loop).result(CLOSE_SECONDS)
            self._agent = None
        self.loop.call_soon_threadsafe(self.loop.stop)

    def pause(self) -> bool:
        """Pause the runs of the default agent; False when it has none yet."""
        if self._agent is None or not self._agent.busy:
            return False
        asyncio.run_coroutine_threadsafe(self._agent.stop(), self.loop)
        return True


_background: Background | None = None
_making = threading.Lock()


def background() -> Background:
    """Return the background loop of this process."""
    global _background  # noqa: PLW0603  # one per process is the point
    with _making:
        if _background is None:
            _background = Background()
        return _background


_of_the_parent: list[Background] = []


def _begin_anew_in_child() -> None:
    """Make a forked child start a loop of its own: it has the parent's objects, not its threads.

    The parent's agent is kept as it is and never closed here, because closing its inherited
    database would end the locks that this process may take on the same file later.
    """
    global _background, _making  # one per process is the point
    if _background is not None:
        _of_the_parent.append(_background)
    _background, _making = None, threading.Lock()


os.register_at_fork(after_in_child=_begin_anew_in_child)


def block_on(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and wait for it.

    The first Ctrl-C or SIGTERM pauses the runs, so that the wait ends with RunPaused; where none
    has begun, none will.  The second leaves at once, with the journal on disk.
    """
    behind = background()
    future = asyncio.run_coroutine_threadsafe(coroutine, behind.loop)
    with _terminate_as_interrupt():
        try:
            return future.result()
        except KeyboardInterrupt:
            if not behind.pause():
                future.cancel()
                raise
        return future.result()


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Have SIGTERM interrupt the wait, unless the program has its own plans for it."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


# -- the twins -----------------------------------------------------------------------------------


def plan(graph: Graph, **wish: Any) -> Plan:
    """Return where a graph would run and what it would cost; takes what `Agent.plan` takes."""
    check_keywords("plan", wish, Agent.plan)

    async def ask() -> Plan:
        return await (await background().agent()).plan(graph, **wish)

    return block_on(ask())


def run(what: Graph | Plan, **wish: Any) -> RunResult:
    """Run a graph or a plan and return the result; takes what `Agent.run` takes."""
    check_keywords("run", wish, Agent.run, Agent.plan)

    async def ask() -> RunResult:
        return await (await background().agent()).run(what, **wish)

    return block_on(ask())


def resume(run_id: str, **more: Any) -> RunResult:
    """Go on with a run and return its result; takes what `Agent.resume` takes."""
    check_keywords("resume", more, Agent.resume)

    async def ask() -> RunResult:
        run = await (await background().agent()).resume(run_id, **more)
        return await run.result()

    return block_on(ask())


def status(run_id: str | None = None) -> RunState | list[RunRecord]:
    """Return what a run has done so far, or all runs of the wallet, newest first."""

    async def ask() -> RunState | list[RunRecord]:
        agent = await background().agent()
        return await agent.status(run_id) if run_id else await agent.runs()

    return block_on(ask())
