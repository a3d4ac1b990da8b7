"""Nodes that run on this machine: a bounded number at a time, tried again, within their timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agentkit.artifacts import Artifact
from agentkit.errors import AgentKitError, ExecuteTimedOut, StoreUnavailable, TimedOut
from agentkit.graph.callables import guarding
from agentkit.graph.frozen import FrozenGraph, Functions
from agentkit.graph.registry import Node
from agentkit.journal.blobs import INLINE_BYTES
from agentkit.kinds.kind import Inputs
from agentkit.kinds.registry import local_kind
from agentkit.runtime.context import Resources, RunContext
from agentkit.runtime.deadline import within
from agentkit.runtime.endings import NodeEnd
from agentkit.runtime.function_threads import FunctionThreads
from agentkit.runtime.inputs import NodeInputs
from agentkit.runtime.retry import FIRST_WAIT, again
from agentkit.runtime.worker_pool import WorkerPool

T = TypeVar("T")

LOCAL_AT_ONCE = 64
"""Local nodes that are under way at once; a thread runs each function that blocks."""

CANCELLED_FROM_INSIDE = "it was cancelled by itself, or by something it called"


@dataclass(frozen=True, slots=True)
class ThisMachine:
    """What kinds of work may use on this machine in one run; see `agentkit.kinds.kind.Machine`."""

    resources: Resources
    graph: FrozenGraph
    functions: Functions
    threads: FunctionThreads

    @property
    def folder(self) -> Path:
        """Where relative sources lie."""
        return self.resources.folder

    async def read(self, uri: str) -> bytes:
        """Return what lies under the URI of a source."""
        return await self.resources.read(uri)

    def function(self, node: str, place: str) -> Callable[..., Any]:
        """Return a function of the user's."""
        # Looked up here first: a private attribute of a pydantic model takes as long again.
        return self.functions.get((node, place)) or self.graph.function(node, place)

    def in_thread(self, function: Callable[[], T], *, alone: bool) -> Awaitable[T]:
        """Call a function in one of the run's threads, or in a thread of its own."""
        return self.threads.call_alone(function) if alone else self.threads.call(function)


class LocalNodes:
    """Does the nodes of one run that need no provider, a bounded number at a time.

    Each ends in a call of `finish`, or of `fail` with its error.  `rested` is called when nothing
    is under way any more.
    """

    def __init__(
        self,
        context: RunContext,
        inputs: NodeInputs,
        *,
        finish: Callable[[NodeEnd], None],
        fail: Callable[[str, BaseException], None],
        rested: Callable[[], None],
    ) -> None:
        self._context, self._inputs = context, inputs
        self._finish, self._fail = finish, fail
        self._threads = FunctionThreads()
        graph = context.state.planned.graph
        self._machine = ThisMachine(
            context.resources, graph, functions=graph.remembered, threads=self._threads
        )
        self._workers = WorkerPool(LOCAL_AT_ONCE, self._do, rested)
        self._stopped = False

    @property
    def busy(self) -> bool:
        """Whether a node is under way or waits for a worker."""
        return self._workers.busy

    @property
    def is_more_ready(self) -> bool:
        """Whether a node waits for a worker."""
        return self._workers.waiting > 0

    def add(self, node: Node) -> None:
        """Do a node as soon as a worker is free."""
        self._workers.add(node)

    def stop(self) -> None:
        """Start nothing more and wait for no function of the user's: it may never return."""
        self._stopped = True
        self._workers.stop()

    def close(self) -> None:
        """Let the threads end once the functions that are in them return."""
        self._threads.close()

    async def _do(self, node: Node) -> None:
        """Do a node and report how it ended; raises nothing but its own cancellation."""
        try:
            failed = await self._inputs.failed_condition(node) if node.when else None
            if failed is not None:
                self._finish(NodeEnd.skipped(node.name, f"{failed} did not hold"))
                return
            outputs = await self._outputs_of(node)
            if outputs[0].size > INLINE_BYTES or len(outputs) > 1:  # most need not even be asked
                outputs = await self._context.resources.put(outputs)
            self._finish(NodeEnd.done(node.name, outputs))
        except asyncio.CancelledError:
            if self._stopped:
                raise
            self._fail(node.name, RuntimeError(CANCELLED_FROM_INSIDE))
        except Exception as error:  # noqa: BLE001  # users' functions may raise anything
            self._fail(node.name, error)

    async def _outputs_of(self, node: Node) -> tuple[Artifact, ...]:
        """Make a node's outputs; after a failure that may pass, as often as its retries allow."""
        inputs = await self._inputs.of(node)
        try:
            return await self._in_time(node, self._run(node, inputs))
        except Exception as error:  # users' functions may raise anything
            if not node.retries or not _may_pass(error):
                raise
        await self._context.stop.sleep(FIRST_WAIT)
        async for one in again(node.retries - 1, _may_pass, self._context.stop.sleep):
            with one:
                return await self._in_time(node, self._run(node, inputs))
        raise AssertionError(node.name)

    async def _run(self, node: Node, inputs: Inputs) -> tuple[Artifact, ...]:
        """Let the node's kind, which may be another package's, make its outputs once."""
        with guarding():
            return await local_kind(node).run(node, inputs, self._machine)

    def _in_time(
        self, node: Node, making: Awaitable[tuple[Artifact, ...]]
    ) -> Awaitable[tuple[Artifact, ...]]:
        """Bound the making of outputs where the node says so."""
        return making if node.timeout is None else _within(node.limits.execute, making)


def _may_pass(error: BaseException) -> bool:
    """Return whether trying again may help: most errors of ours say what will stay wrong."""
    return not isinstance(error, AgentKitError) or isinstance(error, StoreUnavailable | TimedOut)


async def _within(
    seconds: float | None, making: Awaitable[tuple[Artifact, ...]]
) -> tuple[Artifact, ...]:
    async with within(seconds, lambda s: ExecuteTimedOut(s, provider="this machine")):
        return await making
