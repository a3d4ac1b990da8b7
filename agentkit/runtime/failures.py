"""Why a node failed, in words for whoever has to mend it."""

from __future__ import annotations

import traceback
from pathlib import Path

from agentkit.errors import AgentKitError, RunPaused, TimedOut
from agentkit.graph.registry import Node
from agentkit.journal.events import NodeFailed
from agentkit.runtime.stop import StopSignal

OUR_PACKAGE = Path(__file__).resolve().parents[1]

_CALLERS = OUR_PACKAGE / "kinds"
"""Kinds of work call users' functions; frames up to theirs say nothing about the function."""


def failure(node: str, error: BaseException) -> NodeFailed:
    """Return the event that records that a node failed for good."""
    return NodeFailed(node=node, error=type(error).__name__, reason=reason_of(error))


def to_mend(stop: StopSignal, node: Node, error: BaseException) -> RunPaused:
    """Return the pause for what the user brought and can mend: a function, or a file."""
    reason = str(error) if isinstance(error, TimedOut) else reason_of(error)
    return stop.paused(f"{node.name}: {reason}", mend=node)


def reason_of(error: BaseException) -> str:
    """Return an error in words: ours with its hint, any other with the line that raised it."""
    if isinstance(error, AgentKitError):
        return f"{error} ({error.hint})" if error.hint else str(error)
    return with_place(error)


def with_place(error: BaseException) -> str:
    """Return the error of a user's function with the line of it that failed.

    Our own frames are left out, and all that lead to the function.  Where the call itself fails, as
    with too many arguments, no line of the user's is at fault and none is named.
    """
    frames = list(traceback.extract_tb(error.__traceback__))
    callers = [n for n, frame in enumerate(frames) if Path(frame.filename).parent == _CALLERS]
    first = callers[-1] + 1 if callers else 0
    theirs = [f for f in frames[first:] if OUR_PACKAGE not in Path(f.filename).parents]
    place = f" ({Path(theirs[-1].filename).name}:{theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {error}{place}"
