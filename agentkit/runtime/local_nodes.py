"""Nodes that run on this machine: sources, splits, users' functions."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

from agentkit.artifacts import Artifact, Dataset, Json, Table
from agentkit.errors import (
    AgentKitError,
    ExecuteTimedOut,
    StateCorrupt,
    StoreUnavailable,
    TimedOut,
    WrongInput,
)
from agentkit.file_io import read_bytes
from agentkit.graph.callables import guarding
from agentkit.graph.nodes import LocalNode, SourceNode, SplitNode
from agentkit.graph.registry import Node
from agentkit.journal.blobs import INLINE_BYTES
from agentkit.runtime.context import RunContext
from agentkit.runtime.deadline import within
from agentkit.runtime.endings import NodeEnd
from agentkit.runtime.function_threads import FunctionThreads
from agentkit.runtime.inputs import NodeInputs
from agentkit.runtime.retry import FIRST_WAIT, again
from agentkit.runtime.worker_pool import WorkerPool
from agentkit.tables import MAX_BYTES, read_table

LOCAL_AT_ONCE = 64
"""Local nodes that are under way at once; a thread runs each function that blocks."""

CANCELLED_FROM_INSIDE = "it was cancelled by itself, or by something it called"


async def source(
    node: SourceNode, folder: Path, read: Callable[[str], Awaitable[bytes]]
) -> Dataset:
    """Bring a table in: a file, or what `read` finds under a URI.

    Raises WrongInput, StoreUnavailable, StateCorrupt (another sha256), MissingExtra.
    """
    if "://" in node.source:
        data = await read(node.source)
    else:
        data = await asyncio.to_thread(read_bytes, folder / node.source, MAX_BYTES)
    if node.sha256 and hashlib.sha256(data).hexdigest() != node.sha256:
        raise StateCorrupt(
            f"{node.source} is not what sha256= pins",
            hint="put back the file that was pinned, or run the graph anew with the new sha256=",
        )
    table = read_table(data, node.source)
    return Dataset.dump(table.rows, table.columns)


def split(node: SplitNode, table: Table) -> tuple[Dataset, Dataset]:
    """Part the rows by a draw that depends on the seed alone."""
    rows = table.rows()
    order = list(range(len(rows)))
    random.Random(node.seed).shuffle(order)  # noqa: S311  # a draw to be repeated, not a secret
    first = set(order[: round(len(rows) * node.at)])
    columns = table.columns
    return (
        Dataset.dump((row for number, row in enumerate(rows) if number in first), columns),
        Dataset.dump((row for number, row in enumerate(rows) if number not in first), columns),
    )


async def call(
    node: LocalNode,
    fn: Callable[..., Any],
    inputs: Mapping[str, Artifact],
    threads: FunctionThreads,
) -> Artifact:
    """Call a user's function, in a thread unless it is a coroutine function.

    Raises WrongInput when it returns what the node does not promise.
    """
    if _is_async(fn):
        with guarding():
            return _promised(node, await fn(*inputs.values()))
    arguments = list(inputs.values())
    run = threads.call if node.timeout is None else threads.call_alone
    return await run(lambda: _promised(node, fn(*arguments)))


_is_async = lru_cache(maxsize=1024)(iscoroutinefunction)


def _promised(node: LocalNode, value: Any) -> Artifact:
    """Return what a function returned as the artifact that its node promises."""
    (promised,) = node.outputs
    if isinstance(value, promised):
        return value
    if promised is Json:
        return Json.dump(value)
    raise WrongInput(
        f"the function of node {node.name!r} returned a {type(value).__name__},"
        f" and its annotation promises a {promised.__name__}"
    )


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
        self._graph = context.state.planned.graph
        self._functions = self._graph.remembered
        self._workers = WorkerPool(LOCAL_AT_ONCE, self._do, rested)
        self._threads = FunctionThreads()
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
            return await self._in_time(node, self._make(node, inputs))
        except Exception as error:  # users' functions may raise anything
            if not node.retries or not _may_pass(error):
                raise
        await self._context.stop.sleep(FIRST_WAIT)
        async for one in again(node.retries - 1, _may_pass, self._context.stop.sleep):
            with one:
                return await self._in_time(node, self._make(node, inputs))
        raise AssertionError(node.name)

    def _in_time(
        self, node: Node, making: Awaitable[tuple[Artifact, ...]]
    ) -> Awaitable[tuple[Artifact, ...]]:
        """Bound the making of outputs where the node says so."""
        return making if node.timeout is None else _within(node.limits.execute, making)

    async def _make(self, node: Node, inputs: Mapping[str, Artifact]) -> tuple[Artifact, ...]:
        """Produce a node's outputs once, by its kind."""
        match node:
            case LocalNode():
                key = (node.name, "fn")  # looked up here first: on a model it takes as long again
                function = self._functions.get(key) or self._graph.function(*key)
                return (await call(node, function, inputs, self._threads),)
            case SourceNode():
                resources = self._context.resources
                return (await source(node, resources.folder, resources.read),)
            case SplitNode():
                return await asyncio.to_thread(split, node, _as_table(inputs["table"]))
            case _:
                raise TypeError(f"{node.name} is done by a provider")


def _may_pass(error: BaseException) -> bool:
    """Return whether trying again may help: most errors of ours say what will stay wrong."""
    return not isinstance(error, AgentKitError) or isinstance(error, StoreUnavailable | TimedOut)


async def _within(
    seconds: float | None, making: Awaitable[tuple[Artifact, ...]]
) -> tuple[Artifact, ...]:
    async with within(seconds, lambda s: ExecuteTimedOut(s, provider="this machine")):
        return await making


def _as_table(artifact: Artifact) -> Table:
    if not isinstance(artifact, Table):
        raise WrongInput(f"a {type(artifact).__name__} has no rows")
    return artifact
