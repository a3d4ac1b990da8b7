"""Which loop a tool's call runs on: always the agent's own, whoever calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from agentkit.agent import Agent
from agentkit.errors import ConfigError
from agentkit.sync import background, block_on

T = TypeVar("T")

Work = Callable[[Agent], Coroutine[Any, Any, T]]


def call(agent: Agent | None, work: Work[T]) -> T:
    """Do a work with an agent, or the default one, from synchronous code.

    Raises ConfigError when called on the very loop that the agent lives on.
    """
    if agent is None:
        return block_on(_with_default(work))
    if agent.loop is _running_loop():
        raise ConfigError(
            "this would wait for itself: the agent lives on the loop that is calling",
            hint="use the async twin, for example ainvoke instead of invoke",
        )
    return asyncio.run_coroutine_threadsafe(work(agent), agent.loop).result()


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
