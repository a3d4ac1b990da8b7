"""Local nodes: call a function of the user's on this machine; it is never shipped."""

from __future__ import annotations

from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any

from agentkit.artifacts import Artifact, Json
from agentkit.errors import WrongInput
from agentkit.graph.callables import guarding
from agentkit.graph.nodes import LocalNode
from agentkit.kinds.kind import Inputs, LocalKind, Machine


class Local(LocalKind[LocalNode]):
    """Calls the function with the artifacts that the node reads, in their order."""

    node_type = LocalNode
    can_be_mended = True

    async def run(self, node: LocalNode, inputs: Inputs, machine: Machine) -> tuple[Artifact, ...]:
        """Return what the function returned, called in a thread unless it is a coroutine function.

        Raises whatever the function does, and WrongInput for what the node does not promise.
        """
        function = machine.function(node.name, "fn")
        arguments = list(inputs.values())
        if _is_async(function):
            with guarding():
                return (_as_promised(node, await function(*arguments)),)
        # A function with a timeout may never return, so it must not hold up those behind it.
        made = await machine.in_thread(
            lambda: _as_promised(node, function(*arguments)), alone=node.timeout is not None
        )
        return (made,)


_is_async = lru_cache(maxsize=1024)(iscoroutinefunction)


def _as_promised(node: LocalNode, value: Any) -> Artifact:
    """Return a value as an artifact of the type that the node promises; raises WrongInput."""
    (promised,) = node.outputs
    if isinstance(value, promised):
        return value
    if promised is Json:
        return Json.dump(value)
    raise WrongInput(
        f"the function of node {node.name!r} returned a {type(value).__name__},"
        f" and its annotation promises a {promised.__name__}"
    )
