"""What nodes read: outputs of other nodes, fetched once and let go after their last reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentkit.artifacts import Artifact, Json
from agentkit.graph.conditions import Condition
from agentkit.graph.registry import Node
from agentkit.runtime.context import RunContext
from agentkit.runtime.failures import to_mend


class NodeInputs:
    """The outputs of the nodes of one run, as far as other nodes still have to read them."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._graph = context.state.planned.graph
        self._outputs: dict[str, tuple[Artifact, ...]] = {}
        self._readers_left = {name: len(below) for name, below in self._graph.children.items()}

    def forget_reader(self, node: str) -> None:
        """Count a node as one that reads its parents no more: it ended before this process."""
        for parent in self._graph.parents[node]:
            self._readers_left[parent] -= 1

    def keep(self, node: str, outputs: tuple[Artifact, ...]) -> None:
        """Keep outputs in memory for the nodes that will read them."""
        if outputs and self._readers_left[node]:
            self._outputs[node] = outputs

    async def of(self, node: Node) -> dict[str, Artifact]:
        """Return what a node reads, by what it is for; counts as its one reading.

        Raises StoreUnavailable and StateCorrupt.
        """
        outputs = self._outputs
        inputs = {}
        for what, source, number in self._graph.wires[node.name]:
            if source not in outputs:  # an earlier process made them, or they were bought
                outputs[source] = await self._fetch(source)
            inputs[what] = outputs[source][number]
        for parent in self._graph.parents[node.name]:
            self._readers_left[parent] -= 1
            if not self._readers_left[parent]:
                outputs.pop(parent, None)
        return inputs

    async def failed_condition(self, node: Node) -> Condition | None:
        """Return the first condition of a node that does not hold, None if all do.

        Raises RunPaused when a function of the user's that decides it raises.
        """
        for condition, function in self._graph.conditions(node.name) if node.when else ():
            source = condition.ref.node
            if source not in self._outputs:
                self._outputs[source] = await self._fetch(source)
            value = self._outputs[source][0]
            assert isinstance(value, Json)  # the graph was checked
            if not self._holds(node, condition, value.value, function):
                return condition
        return None

    def _holds(
        self, node: Node, condition: Condition, value: Any, function: Callable[[Any], Any] | None
    ) -> bool:
        """Return whether a condition holds; raises RunPaused when the user's function fails."""
        try:
            return condition.holds_for(value, function)
        except Exception as error:
            if function is None:
                raise
            raise to_mend(self._context.stop, node, error) from error

    async def _fetch(self, node: str) -> tuple[Artifact, ...]:
        return await self._context.resources.get_all(self._context.state.done[node])
