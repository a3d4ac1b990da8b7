"""One run being executed: nodes start as their inputs are durable, and none before.

Starting anew and resuming are the same: what the folded state already has is not done again.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from agentkit.artifacts import Artifact, Table
from agentkit.errors import AgentKitError, PaymentError, RunPaused, StateError, WrongInput
from agentkit.graph.nodes import (
    InferNode,
    LocalNode,
    Node,
    SourceNode,
    SplitNode,
    SqlNode,
    TrainNode,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.events import Produced
from agentkit.journal.runstate import RunState
from agentkit.market.attempt import purchase_id
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Event, Transaction
from agentkit.runtime import here, resolve
from agentkit.runtime.buying import Buyer, Want
from agentkit.runtime.means import Means, keep
from agentkit.runtime.threads import Threads

CANCEL_POLL = 0.5
"""Seconds between looks for another process's request to cancel."""


class Execution:
    """Executes a run from its folded state to an end or a pause; owned by one process."""

    def __init__(self, means: Means, state: RunState, *, rebuy: bool = False) -> None:
        self._means, self.state = means, state
        self._buyer = Buyer(means, state, rebuy=rebuy)
        self._threads = Threads()
        self._graph = state.planned.graph
        self._waiting = {name: len(above) for name, above in self._graph.parents.items()}
        self._children: dict[str, list[Node]] = {}
        self._outputs: dict[str, tuple[Artifact, ...]] = {}
        self._live: dict[asyncio.Task[None], str] = {}
        self._idle = asyncio.Event()
        self._paused: RunPaused | None = None
        self._cancelled = False
        self.changed = asyncio.Event()
        for node in self._graph.nodes:
            for parent in self._graph.parents[node.name]:
                self._children.setdefault(parent, []).append(node)

    @cached_property
    def _functions(self) -> dict[str, Callable[..., Any]]:
        return self._graph.functions()

    # -- the whole -------------------------------------------------------------------------------

    async def go(self) -> None:
        """Execute to the end, a pause or a failure, and record which it was."""
        if self.state.outcome != "running":
            return
        watch = asyncio.create_task(self._watch_for_cancel())
        try:
            self._begin()
            await self._idle.wait()
            await self._buyer.settle_errands()
            await self._end()
        finally:
            watch.cancel()
            for task in self._live:
                task.cancel()
            self._threads.close()

    def stop(self) -> None:
        """Buy nothing more and leave what can be found again; `go` then records a pause."""
        self._halt()
        self._pause(RunPaused(self.state.run, "it was asked to stop", self._command))

    def cancel(self) -> None:
        """Stop for good: open attempts are cancelled at their providers."""
        self._cancelled = True
        self._halt()
        self._settle_idle()

    def _halt(self) -> None:
        """Have nothing more bought, and wait for no user's function: it may never return."""
        self._buyer.stopping.set()
        for task, name in self._live.items():
            if isinstance(self._graph.by_name[name], LocalNode):
                task.cancel()

    @property
    def _command(self) -> str:
        return f"agentkit resume {self.state.run}"

    def _begin(self) -> None:
        for name in self.state.done:
            for child in self._children.get(name, ()):
                self._waiting[child.name] -= 1
        for node in self._graph.nodes:
            self._start_if_ready(node)
        self._settle_idle()

    def _start_if_ready(self, node: Node) -> None:
        halted = self._paused or self._cancelled or self.state.failures
        if self._waiting[node.name] or node.name in self.state.done or halted:
            return
        task = asyncio.create_task(self._do(node))
        self._live[task] = node.name
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        name = self._live.pop(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, RunPaused):
            self._pause(error)
        elif isinstance(error, StateError):
            self._pause(RunPaused(self.state.run, str(error), self._command))
        elif error is not None:
            self.state.apply(_failure(name, error))
        elif not task.cancelled():
            for child in self._children.get(name, ()):
                self._waiting[child.name] -= 1
                self._start_if_ready(child)
        self._settle_idle()

    def _pause(self, why: RunPaused) -> None:
        """Keep the first reason to pause, but an uncertain purchase before any other."""
        if self._paused is None or (why.uncertain and not self._paused.uncertain):
            self._paused = why
        self._settle_idle()

    def _settle_idle(self) -> None:
        if not self._live:
            self._idle.set()

    async def _end(self) -> None:
        state, failures = self.state, dict(self.state.failures)
        if self._cancelled:
            await self._cancel_open("the run was cancelled")
            await self._record(e.RunFinished(outcome="cancelled"), release=True)
        elif failures:
            await self._cancel_open("the run failed")
            events = [e.NodeFailed(node=n, error="", reason=why) for n, why in failures.items()]
            await self._record(*events, e.RunFinished(outcome="failed"), release=True)
        elif len(state.done) == len(self._graph.nodes):
            await self._record(e.RunFinished(outcome="done"), release=True)
        elif self._paused:
            why = self._paused
            uncertain = why.uncertain or bool(state.unresolved)
            await self._record(e.RunPaused(why=why.why, uncertain=uncertain), release=False)

    async def _record(self, *events: Event, release: bool) -> None:
        def work(tx: Transaction) -> None:
            for event in events:
                tx.append(self.state.run, event)
            if release:
                self._means.ledger.release(tx, self.state.run)

        await self._means.journal.commit(work)
        for event in events:
            self.state.apply(event)
        self.changed.set()

    async def _cancel_open(self, why: str) -> None:
        for purchase in self.state.purchases.values():
            for attempt in list(purchase.open.values()):
                with suppress(PaymentError):  # its end must not keep the run from its own
                    await self._buyer.cancel(attempt, why)

    async def _watch_for_cancel(self) -> None:
        run, journal = self.state.run, self._means.journal
        while not await journal.commit(lambda tx: tx.get(r.CancelRequest, run)):  # noqa: ASYNC110
            await asyncio.sleep(CANCEL_POLL)  # the request is another process's
        self.cancel()

    # -- one node --------------------------------------------------------------------------------

    async def _do(self, node: Node) -> None:
        inputs = await self._inputs(node)
        match node:
            case LocalNode():
                outputs = await self._call(node, inputs)
            case SourceNode():
                outputs = (await here.source(node, self._means.folder),)
            case SplitNode():
                table = _as_table(inputs["table"])
                outputs = await asyncio.to_thread(here.split, node, table)
            case InferNode() if node.over:
                outputs = (await self._map(node, inputs),)
            case InferNode() | TrainNode() | SqlNode():
                self._outputs[node.name] = await self._buy(node, inputs)
                self.changed.set()
                return
        await self._finish(node, outputs)

    async def _call(self, node: LocalNode, inputs: resolve.Inputs) -> tuple[Artifact, ...]:
        function, arguments = self._functions[node.name], list(inputs.values())
        return (await self._threads.call(lambda: here.call(node, function, arguments)),)

    async def _finish(self, node: Node, outputs: tuple[Artifact, ...]) -> None:
        """Record the outputs of a node that was not bought as one purchase."""
        outputs = await self._means.put(outputs)
        event = await self._means.journal.commit(
            lambda tx: _append(tx, self.state.run, node.name, keep(tx, outputs))
        )
        self.state.apply(event)
        self._outputs[node.name] = outputs
        self.changed.set()

    async def _inputs(self, node: Node) -> dict[str, Artifact]:
        for parent in self._graph.parents[node.name]:
            if parent not in self._outputs:  # an earlier process made them
                produced = self.state.done[parent]
                self._outputs[parent] = tuple([await self._means.get(p) for p in produced])
        return {what: self._outputs[ref.node][ref.output] for what, ref, _ in node.edges()}

    # -- bought nodes ----------------------------------------------------------------------------

    async def _buy(
        self, node: InferNode | TrainNode | SqlNode, inputs: resolve.Inputs
    ) -> tuple[Artifact, ...]:
        def done(outputs: tuple[Produced, ...], receipt: Receipt) -> Event:
            return e.NodeDone(node=node.name, outputs=outputs, receipt=receipt)

        match node:
            case InferNode():
                task = resolve.infer_task(node, inputs)
            case TrainNode():
                task = resolve.train_task(node, inputs)
            case SqlNode():
                task = resolve.sql_task(node, inputs)
        planned = self.state.planned.node(node.name)
        purchase = purchase_id(self.state.run, node.name)
        return await self._buyer.buy(Want(node, planned, task, purchase, None, done))

    async def _map(self, node: InferNode, inputs: resolve.Inputs) -> Artifact:
        """Buy an infer node once for every row, as many at a time as the offer has lanes."""
        rows = _as_table(inputs["over"]).rows()
        if len(rows) > node.max_items:
            raise WrongInput(
                f"node {node.name!r} maps over {len(rows)} rows, and max_items is {node.max_items}",
                hint=f"set max_items={len(rows)}, or take fewer rows",
            )
        planned = self.state.planned.node(node.name)
        if len(rows) > planned.items:
            raise RunPaused(
                self.state.run,
                f"node {node.name!r} maps over {len(rows)} rows, and the plan priced"
                f" {planned.items}: resume it under a new plan",
                f"{self._command} --plan plan.json",
            )
        lanes = planned.offer.lanes if planned.offer else 1
        answers: dict[int, Artifact] = {}
        numbers = iter(range(len(rows)))

        async def lane() -> None:
            for number in numbers:
                try:
                    answers[number] = await self._item(node, inputs, rows[number], number)
                except BaseException:
                    deque(numbers, maxlen=0)  # the other lanes end what they are at, and no more
                    raise

        await _all_or_worst_error([lane() for _ in range(max(1, lanes))])
        return resolve.mapped_output(node, rows, [answers[n] for n in range(len(rows))])

    async def _item(
        self, node: InferNode, inputs: resolve.Inputs, row: dict[str, Any], number: int
    ) -> Artifact:
        known = self.state.items.get(node.name, {}).get(number)
        if known:
            return await self._means.get(known[0])

        def done(outputs: tuple[Produced, ...], receipt: Receipt) -> Event:
            return e.ItemDone(node=node.name, item=number, outputs=outputs, receipt=receipt)

        planned = self.state.planned.node(node.name)
        task = resolve.infer_task(node, inputs, row)
        purchase = purchase_id(self.state.run, node.name, number)
        (answer,) = await self._buyer.buy(Want(node, planned, task, purchase, number, done))
        self.changed.set()
        return answer


async def _all_or_worst_error(lanes: list[Coroutine[Any, Any, None]]) -> None:
    """Run lanes side by side to their ends; raises an uncertain pause before any other error."""
    outcomes = await asyncio.gather(*lanes, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in sorted(errors, key=lambda e: not (isinstance(e, RunPaused) and e.uncertain)):
        raise error


def _append(tx: Transaction, run: str, node: str, outputs: tuple[Produced, ...]) -> Event:
    event = e.NodeDone(node=node, outputs=outputs)
    tx.append(run, event)
    return event


def _failure(node: str, error: BaseException) -> Event:
    reason = str(error) if isinstance(error, AgentKitError) else _with_place(error)
    return e.NodeFailed(node=node, error=type(error).__name__, reason=reason)


def _with_place(error: BaseException) -> str:
    """Name an error of a user's function, and the line it was raised at."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _as_table(artifact: Artifact) -> Table:
    if not isinstance(artifact, Table):
        raise WrongInput(f"a {type(artifact).__name__} has no rows")
    return artifact
