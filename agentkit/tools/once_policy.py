"""What `once` promises for one tool, and how each call of it is done.

The journal has a durable record before the tool runs, and another one after.  A repeated call
finds the second and returns the result.  One that finds only the first knows that the call before
did not get to an end, and asks instead of guessing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from langchain_core.tools import ToolException

from agentkit.errors import ConfigError, EffectFailed, EffectUncertain, WrongInput
from agentkit.journal.lease import EffectLease
from agentkit.journal.records import Effect
from agentkit.memory.knowledge.effects import Effects, Ended, Intent, check_result
from agentkit.tools.agent_loop import HasMemory, memory_of, wait
from agentkit.tools.effect_journals import JOURNALS
from agentkit.tools.serialization import Values

log = logging.getLogger("agentkit")

LOOK_SECONDS = 0.05
"""How long it waits between two looks."""


ONCE_MARK = "__agentkit_once__"
"""The attribute of what `once` returned; guarded twice, a call would wait for itself."""


class NotHappened:
    """The class of NOT_HAPPENED."""

    def __repr__(self) -> str:
        return "NOT_HAPPENED"


NOT_HAPPENED: Final = NotHappened()
"""Returned by a function given as `on_unknown`: the effect did not happen, run the tool."""

Key = str | Callable[..., str]
OnUnknown = Literal["raise", "again"] | Callable[..., Any]


class Call(NamedTuple):
    """One call of a tool: what `key` and `on_unknown` are called with, and what it goes by.

    `arguments` is what a later call with the same key is compared by.  `thread` is that of
    LangGraph and `id` that of LangChain's ToolCall, "" where there is none.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    arguments: Any
    thread: str = ""
    id: str = ""


@dataclass(frozen=True)
class OncePolicy:
    """What was asked of `once` for one tool, and the calls under it."""

    name: str
    key: Key | None
    agent: HasMemory | None
    home: Path | None
    on_unknown: OnUnknown
    unknown_errors: tuple[type[Exception], ...]
    remember_errors: bool
    patience: float
    allow: tuple[type, ...]

    # -- a call ----------------------------------------------------------------------------------

    def call(self, call: Call, run: Callable[[], Any]) -> Any:
        """Return the result of an effect on record, or run the tool and record what came of it."""
        intent = self._intent(call)
        effects = wait(self._effects())
        with effects.lease(intent) as lease:
            self._take(lease)
            known = wait(effects.look_up(intent))
            if isinstance(known, Ended):
                return self._repeat(known)
            if known is not None:
                answer = self._ask(known, call)
                if answer is not NOT_HAPPENED:
                    wait(effects.end(intent, self._done(answer)))
                    return answer

            wait(effects.begin(intent))
            try:
                result = run()
            except Exception as error:
                wait(self._record_error(effects, intent, error))
                raise
            wait(effects.end(intent, self._done(result)))
            return result

    async def acall(self, call: Call, run: Callable[[], Awaitable[Any]]) -> Any:
        """Do what `call` does without blocking.

        A cancelled tool is cancelled, and whether its effect happened is then unknown.
        """
        intent = self._intent(call)
        effects = await self._effects()
        with effects.lease(intent) as lease:
            await self._take_async(lease)
            known = await effects.look_up(intent)
            if isinstance(known, Ended):
                return self._repeat(known)
            if known is not None:
                answer = await self._ask_async(known, call)
                if answer is not NOT_HAPPENED:
                    await effects.end(intent, self._done(answer))
                    return answer

            await effects.begin(intent)
            try:
                result = await run()
            except Exception as error:
                await self._record_error(effects, intent, error)
                raise
            await effects.end(intent, self._done(result))
            return result

    async def _effects(self) -> Effects:
        """Return the effects on record, in the folder or in the agent's journal."""
        if self.home is not None:
            return Effects(await JOURNALS.open(self.home))
        return (await memory_of(self.agent)).effects

    def _intent(self, call: Call) -> Intent:
        """Return what a call wants to happen once; raises WrongInput if nothing identifies it."""
        try:
            arguments = Values(allow=self.allow).encode(call.arguments)
        except WrongInput as error:
            raise WrongInput(
                f"the arguments of the tool {self.name!r} cannot be compared with later ones:"
                f" {error}",
                hint="call it with plain JSON, or pass the class in allow=[...]",
            ) from error
        return Intent.of(self.name, self._key_parts(call), arguments)

    def _key_parts(self, call: Call) -> tuple[str, ...]:
        if self.key is not None:
            key = self.key(*call.args, **call.kwargs) if callable(self.key) else self.key
            if not isinstance(key, str) or not key:
                raise WrongInput(
                    f"the key of the tool {self.name!r} is a {type(key).__name__}, not a text",
                    hint="return a text that is not empty from key=",
                )
            return ("key", key)
        if not call.id:
            raise WrongInput(
                f"a call of the tool {self.name!r} has no id by which it could be known again",
                hint="call it with a ToolCall, as LangGraph's ToolNode does, or pass key=",
            )
        return ("call", call.thread, call.id)

    # -- waiting for others ----------------------------------------------------------------------

    def _take(self, lease: EffectLease) -> None:
        """Take a lease; raises EffectUncertain if another call has it for too long."""
        until = time.monotonic() + self.patience
        while not lease.try_take():
            self._check_time(until)
            time.sleep(LOOK_SECONDS)

    async def _take_async(self, lease: EffectLease) -> None:
        until = time.monotonic() + self.patience
        while not lease.try_take():
            self._check_time(until)
            await asyncio.sleep(LOOK_SECONDS)

    def _check_time(self, until: float) -> None:
        if time.monotonic() > until:
            raise EffectUncertain(
                f"the tool {self.name!r} is still at work for another call with the same key",
                tool=self.name,
                running=True,
                hint="call it again later, or let it wait longer with patience=SECONDS",
            )

    # -- what is known ---------------------------------------------------------------------------

    def _repeat(self, ended: Ended) -> Any:
        """Return, or raise, what came of an effect before."""
        if ended.outcome == "done" and ended.is_stored:
            return self._values().decode(ended.result)
        if ended.outcome == "done":
            raise EffectUncertain(
                f"the effect of the tool {self.name!r} happened before, but what the tool returned"
                " could not be stored",
                tool=self.name,
                hint="return text, numbers, lists and dicts from it, or pass allow=[...]",
            )
        if ended.error == ToolException.__name__:  # so that `handle_tool_error` finds it
            raise ToolException(ended.message)
        raise EffectFailed(
            f"the tool {self.name!r} raised {ended.error} before: {ended.message}",
            error=ended.error,
        )

    def _ask(self, effect: Effect, call: Call) -> Any:
        """Return the result of an effect of which only the beginning is on record.

        That is NOT_HAPPENED where the tool has to run.  Raises EffectUncertain if nobody can say.
        """
        if self.on_unknown == "again":
            return NOT_HAPPENED
        if not callable(self.on_unknown):
            raise self._uncertain(effect)
        answer = self.on_unknown(*call.args, **call.kwargs)
        if inspect.iscoroutine(answer):
            answer.close()
            raise ConfigError(
                f"on_unknown of the tool {self.name!r} is async, and the tool was called from"
                " synchronous code",
                hint="use ainvoke, or pass a function that is not async",
            )
        return answer

    async def _ask_async(self, effect: Effect, call: Call) -> Any:
        """Do what `_ask` does, with a function that may be async."""
        if not inspect.iscoroutinefunction(self.on_unknown):
            return self._ask(effect, call)
        return await self.on_unknown(*call.args, **call.kwargs)

    def _uncertain(self, effect: Effect) -> EffectUncertain:
        began = datetime.fromtimestamp(effect.at, UTC).isoformat(sep=" ", timespec="seconds")
        return EffectUncertain(
            f"the tool {self.name!r} began at {began} and did not get to say what came of it, so"
            " its effect may have happened or not",
            tool=self.name,
            hint='find out; then pass on_unknown="again" to run it, or a function that returns its'
            " result",
        )

    # -- what came of it -------------------------------------------------------------------------

    def _done(self, result: Any) -> Ended:
        """Return how a tool ended that returned; warns if its result cannot be stored."""
        try:
            plain = self._values().encode(result)
            check_result(plain)
        except WrongInput as error:
            log.warning(
                "the result of the tool %r cannot be returned to a repeated call: %s",
                self.name,
                error,
            )
            return Ended("done", is_stored=False)
        return Ended("done", result=plain)

    async def _record_error(self, effects: Effects, intent: Intent, error: Exception) -> None:
        """Record what a tool raised; an error that leaves the outcome unknown is not recorded."""
        if isinstance(error, self.unknown_errors):
            return
        if self.remember_errors and not _is_control_flow(error):
            raised = Ended("failed", error=type(error).__name__, message=str(error))
            await effects.end(intent, raised)
        else:
            await effects.forget(intent)

    def _values(self) -> Values:
        """Return the encoder of results; a Command is among them where LangGraph is in use."""
        if "langgraph.types" not in sys.modules:
            return Values(allow=self.allow)
        from agentkit.tools.langgraph_values import KINDS

        return Values(KINDS, allow=self.allow)


def _is_control_flow(error: Exception) -> bool:
    """Whether an exception is how LangGraph leaves a node, as `interrupt()` in a tool does."""
    errors = sys.modules.get("langgraph.errors")
    return errors is not None and isinstance(error, errors.GraphBubbleUp)
