"""Runs a tool's calls on the event loop of its agent, from synchronous and asynchronous code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from agentkit.agent import Agent
from agentkit.errors import ConfigError
from agentkit.memory.knowledge.knowledge import Knowledge
from agentkit.sync import background, block_on

T = TypeVar("T")

Work = Callable[[Agent], Coroutine[Any, Any, T]]


class HasMemory(Protocol):
    """The part of an agent that stores need."""

    @property
    def memory(self) -> Knowledge:
        """The agent's memory."""


async def memory_of(agent: HasMemory | None) -> Knowledge:
    """Return the memory of an agent, or of the default one; callable on any event loop."""
    if agent is not None:
        return agent.memory
    opening = asyncio.run_coroutine_threadsafe(background().agent(), background().loop)
    return (await asyncio.wrap_future(opening)).memory


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the memory to its end, from any thread, and return its result.

    It runs on the background loop.  A caller on that very loop would block the loop that has to do
    the work, so there it raises ConfigError.  On any other running loop it is safe.
    """
    if background().loop is _running_loop():
        coroutine.close()
        raise _waiting_for_itself("the default agent")
    return asyncio.run_coroutine_threadsafe(coroutine, background().loop).result()


def call(agent: Agent | None, work: Work[T]) -> T:
    """Call `work` with an agent, or the default one, from synchronous code.

    Raises ConfigError if it is called on the agent's own event loop, which it would block.
    """
    if agent is None:
        return block_on(_with_default(work))
    if agent.loop is _running_loop():
        raise _waiting_for_itself("the agent")
    return asyncio.run_coroutine_threadsafe(work(agent), agent.loop).result()


def _waiting_for_itself(who: str) -> ConfigError:
    """Return the error for a blocking call on the loop that would have to do the work."""
    return ConfigError(
        f"this would wait for itself: {who} lives on the loop that is calling",
        hint="use the async twin, for example ainvoke instead of invoke",
    )


async def acall(agent: Agent | None, work: Work[T]) -> T:
    """Call `work` with an agent, or the default one, from asynchronous code on any loop."""
    if agent is not None and agent.loop is asyncio.get_running_loop():
        return await work(agent)
    loop = agent.loop if agent is not None else background().loop
    coroutine = work(agent) if agent is not None else _with_default(work)
    answer: Awaitable[T] = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))
    return await answer


async def _with_default(work: Work[T]) -> T:
    return await work(await background().agent())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
