"""Which loop a tool's call runs on: the agent's own, or for memory any, whoever calls."""

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


class Remembering(Protocol):
    """What stores need of an agent: its memory."""

    @property
    def memory(self) -> Knowledge: ...


async def memory_of(agent: Remembering | None) -> Knowledge:
    """Return the memory of an agent, or of the default one; usable from any loop."""
    if agent is not None:
        return agent.memory
    opening = asyncio.run_coroutine_threadsafe(background().agent(), background().loop)
    return (await asyncio.wrap_future(opening)).memory


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Wait for what memory does, from any thread, that of a running loop included.

    It runs on the background loop and ends in the journal's own thread: only on the background
    loop itself it would wait for itself, and raises ConfigError.
    """
    if background().loop is _running_loop():
        coroutine.close()
        raise _waiting_for_itself("the default agent")
    return asyncio.run_coroutine_threadsafe(coroutine, background().loop).result()


def call(agent: Agent | None, work: Work[T]) -> T:
    """Do a work with an agent, or the default one, from synchronous code.

    Raises ConfigError when called on the very loop that the agent lives on.
    """
    if agent is None:
        return block_on(_with_default(work))
    if agent.loop is _running_loop():
        raise _waiting_for_itself("the agent")
    return asyncio.run_coroutine_threadsafe(work(agent), agent.loop).result()


def _waiting_for_itself(who: str) -> ConfigError:
    return ConfigError(
        f"this would wait for itself: {who} lives on the loop that is calling",
        hint="use the async twin, for example ainvoke instead of invoke",
    )


async def acall(agent: Agent | None, work: Work[T]) -> T:
    """Do a work with an agent, or the default one, from asynchronous code on any loop."""
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
