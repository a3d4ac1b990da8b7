"""`once`: the effect of a tool happens once, across crashes, resumes and repeated calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, overload

from langchain_core.tools import BaseTool

from agentkit.errors import ConfigError, EffectUncertain, PaymentUncertain
from agentkit.tools.agent_loop import HasMemory
from agentkit.tools.once_policy import ONCE_MARK, Call, Key, OncePolicy, OnUnknown
from agentkit.tools.once_tool import once_tool

T = TypeVar("T")
P = ParamSpec("P")
Tool = TypeVar("Tool", bound=BaseTool)

PATIENCE_SECONDS = 600.0
"""How long a call waits for another one with the same key, where `patience` is not given."""


@overload
def once(
    tool: Tool,
    *,
    key: Key | None = None,
    agent: HasMemory | None = None,
    home: Path | str | None = None,
    on_unknown: OnUnknown = "raise",
    unknown_errors: Sequence[type[Exception]] = (),
    remember_errors: bool = False,
    patience: float = PATIENCE_SECONDS,
    allow: Sequence[type] = (),
) -> Tool: ...


@overload
def once(
    tool: Callable[P, T],
    *,
    key: Key,
    agent: HasMemory | None = None,
    home: Path | str | None = None,
    on_unknown: OnUnknown = "raise",
    unknown_errors: Sequence[type[Exception]] = (),
    remember_errors: bool = False,
    patience: float = PATIENCE_SECONDS,
    allow: Sequence[type] = (),
) -> Callable[P, T]: ...


def once(
    tool: Any,
    *,
    key: Key | None = None,
    agent: HasMemory | None = None,
    home: Path | str | None = None,
    on_unknown: OnUnknown = "raise",
    unknown_errors: Sequence[type[Exception]] = (),
    remember_errors: bool = False,
    patience: float = PATIENCE_SECONDS,
    allow: Sequence[type] = (),
) -> Any:
    """Return a tool, or a function, whose effect happens once for each key.

    A tool's key is the thread and the id of its ToolCall, which a resume repeats.  `key`, a text
    or a function of the arguments, takes their place; a function needs one.  A repeated call
    returns the stored result; with other arguments it raises IntentMismatch.  The record is in the
    journal of `agent`, in a folder `home`, or without both in the default agent's journal.

    If a process died while the tool ran, nobody knows whether the effect happened.  Then the next
    call raises EffectUncertain, or with `on_unknown="again"` runs the tool.  If `on_unknown` is a
    function, it is called with the arguments, and returns the result or NOT_HAPPENED.

    What the tool raises counts as not happened, unless it is EffectUncertain, PaymentUncertain or
    one of `unknown_errors`; with `remember_errors` it is raised again instead of running the tool.
    A call waits up to `patience` seconds for another one with the same key.  Results are JSON of
    up to 256 KiB, messages and documents of LangChain included, and values of the classes in
    `allow`.

        charge = once(charge, agent=agent, on_unknown=find_charge)
        graph.add_node("tools", ToolNode([charge]))
    """
    if agent is not None and home is not None:
        raise ConfigError("a tool has one journal", hint="pass either agent= or home=")
    if not (callable(on_unknown) or on_unknown in ("raise", "again")):
        raise ConfigError(
            f"on_unknown={on_unknown!r} is not a choice", hint='use "raise", "again" or a function'
        )
    if getattr(tool, ONCE_MARK, False):
        raise ConfigError(
            "this tool's effect happens once already", hint="pass the tool that was given to once()"
        )
    is_tool = isinstance(tool, BaseTool)
    policy = OncePolicy(
        name=tool.name if is_tool else getattr(tool, "__name__", type(tool).__name__),
        key=key,
        agent=agent,
        home=Path(home) if home is not None else None,
        on_unknown=on_unknown,
        unknown_errors=(EffectUncertain, PaymentUncertain, *unknown_errors),
        remember_errors=remember_errors,
        patience=patience,
        allow=tuple(allow),
    )
    if is_tool:
        return once_tool(tool, policy)
    return _once_function(tool, policy)


# -- functions -----------------------------------------------------------------------------------


def _once_function(function: Callable[..., Any], policy: OncePolicy) -> Callable[..., Any]:
    """Return a function, sync or async like the given one, whose effect happens once."""
    if policy.key is None:
        raise ConfigError(
            f"a call of the function {policy.name!r} has no id by which it could be known again",
            hint="pass key=, or make it a tool first: once(tool(FUNCTION))",
        )
    signature = inspect.signature(function)

    def call_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return Call(args, kwargs, dict(bound.arguments))

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def acall_once(*args: Any, **kwargs: Any) -> Any:
            return await policy.acall(call_of(args, kwargs), lambda: function(*args, **kwargs))

        setattr(acall_once, ONCE_MARK, True)
        return acall_once

    @wraps(function)
    def call_once(*args: Any, **kwargs: Any) -> Any:
        return policy.call(call_of(args, kwargs), lambda: function(*args, **kwargs))

    setattr(call_once, ONCE_MARK, True)
    return call_once
