"""Going on with runs that a process which ended left behind."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agentkit.errors import AgentKitError
from agentkit.graph.frozen import FrozenGraph
from agentkit.runtime.result import RunResult
from agentkit.runtime.run import Run

log = logging.getLogger("agentkit")


def same_graph(graph: FrozenGraph, supplied: Sequence[FrozenGraph]) -> FrozenGraph | None:
    """Return the supplied graph that is this one, or this one with other code in its functions."""
    equal = next((other for other in supplied if other.digest == graph.digest), None)
    return equal or next((other for other in supplied if other.shape == graph.shape), None)


async def outcome_of(run: Run | AgentKitError) -> RunResult | AgentKitError:
    """Return how a run came out, or why it could not go on."""
    if isinstance(run, AgentKitError):
        return run
    try:
        return await run.result()
    except AgentKitError as error:
        return error


def tell_end(run: Run) -> None:
    """Say how a run that was taken up again came out."""
    state = run.status
    told = f": {state.why}" if state.why else ""
    level = logging.INFO if state.outcome == "done" else logging.WARNING
    log.log(level, "run %s is %s%s", run.id, state.outcome, told)
