"""LangChain's tools with `once`: everything but how they run stays as it is.

LangChain validates arguments and makes a ToolMessage in `run`, and does the work in `_run`.  The
effect is guarded around `_run`.  So a repeated call gets its ToolMessage, callbacks and handling
of errors as a first one does.  The id of a call is known in `run` only, and passed on in a context
variable.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial, wraps
from typing import Any, NamedTuple, TypeVar

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool
from pydantic import BaseModel, PrivateAttr

from agentkit.errors import WrongInput
from agentkit.tools.once_policy import ONCE_MARK, Call, OncePolicy

Tool = TypeVar("Tool", bound=BaseTool)


class CurrentCall(NamedTuple):
    """The call that is under way in a context; `is_running` once the tool itself runs."""

    tool: BaseTool
    call: Call
    is_running: bool = False


_current: ContextVar[CurrentCall | None] = ContextVar("agentkit_tool_call", default=None)


def once_tool(tool: Tool, policy: OncePolicy) -> Tool:
    """Return a copy of a tool, of a subclass of its class, whose effect happens once."""
    copied = tool.model_copy()
    object.__setattr__(copied, "__class__", _once_class(type(tool)))
    copied._once = policy
    return copied


@cache
def _once_class(cls: type[BaseTool]) -> type[BaseTool]:
    """Return a subclass of a tool's class that runs each call under the tool's policy."""

    def run(self: Any, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        with _calling(self, tool_input, kwargs.get("config"), kwargs.get("tool_call_id")):
            return cls.run(self, tool_input, *args, **kwargs)

    async def arun(self: Any, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        with _calling(self, tool_input, kwargs.get("config"), kwargs.get("tool_call_id")):
            return await cls.arun(self, tool_input, *args, **kwargs)

    # LangChain looks at the signature to see what it should pass, hence `wraps`.
    @wraps(cls._run)
    def _run(self: Any, *args: Any, **kwargs: Any) -> Any:
        work = partial(cls._run, self, *args, **kwargs)
        current = _current_of(self)
        if current.is_running:
            return work()
        return self._once.call(current.call, partial(_running, current, work))

    @wraps(cls._arun)
    async def _arun(self: Any, *args: Any, **kwargs: Any) -> Any:
        current = _current_of(self)
        if current.is_running or getattr(self, "coroutine", self) is None:
            # Without a coroutine, LangChain calls `_run` in a thread, which records the effect
            # even if this call is cancelled meanwhile.
            return await cls._arun(self, *args, **kwargs)

        async def work() -> Any:
            with _marked_running(current):
                return await cls._arun(self, *args, **kwargs)

        return await self._once.acall(current.call, work)

    namespace: dict[str, Any] = {
        "__module__": cls.__module__,
        "__doc__": cls.__doc__,
        ONCE_MARK: True,
        "_once": PrivateAttr(),
        "run": run,
        "arun": arun,
        "_run": _run,
    }
    if cls._arun is not BaseTool._arun:  # the base class calls `_run` in a thread
        namespace["_arun"] = _arun
    return types.new_class(cls.__name__, (cls,), exec_body=lambda body: body.update(namespace))


# -- the call that is under way ------------------------------------------------------------------


@contextmanager
def _calling(
    tool: BaseTool, tool_input: Any, config: RunnableConfig | None, tool_call_id: str | None
) -> Iterator[None]:
    """Have `_run` and `_arun` know the call that is under way in this context."""
    arguments = _model_arguments(tool, tool_input)
    is_text = isinstance(arguments, str)
    thread = (ensure_config(config).get("configurable") or {}).get("thread_id") or ""
    call = Call(
        args=(arguments,) if is_text else (),
        kwargs={} if is_text else arguments,
        arguments=arguments,
        thread=str(thread),
        id=tool_call_id or "",
    )
    token = _current.set(CurrentCall(tool, call))
    try:
        yield
    finally:
        _current.reset(token)


def _current_of(tool: BaseTool) -> CurrentCall:
    """Return the call of a tool that is under way; raises WrongInput if there is none."""
    current = _current.get()
    if current is None or current.tool is not tool:
        raise WrongInput(
            f"the tool {tool.name!r} was called past LangChain, so its call is not known",
            hint="call it with invoke or ainvoke",
        )
    return current


def _running(current: CurrentCall, work: Any) -> Any:
    with _marked_running(current):
        return work()


@contextmanager
def _marked_running(current: CurrentCall) -> Iterator[None]:
    """Mark a call as running, so that an `_arun` that calls `_run` is not guarded twice."""
    token = _current.set(current._replace(is_running=True))
    try:
        yield
    finally:
        _current.reset(token)


def _model_arguments(tool: BaseTool, tool_input: Any) -> Any:
    """Return the arguments that the model wrote, without those that LangGraph injects."""
    if not isinstance(tool_input, Mapping):
        return tool_input
    names = _argument_names(tool)
    return {name: value for name, value in tool_input.items() if names is None or name in names}


def _argument_names(tool: BaseTool) -> set[str] | None:
    """Return the names of the arguments that the model sees, None if its schema is open."""
    schema = tool.tool_call_schema
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        return None if properties is None else set(properties)
    fields = schema.model_fields if issubclass(schema, BaseModel) else {}
    return {*tool.args, *fields}
