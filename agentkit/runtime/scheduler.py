"""One run being executed: nodes start as their inputs are durable, and none before.

Starting anew and resuming are the same: what the folded state already has is not done again.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from agentkit.artifacts import Artifact, Json, Table
from agentkit.errors import (
    AgentKitError,
    ExecuteTimedOut,
    PaymentError,
    RunPaused,
    StateError,
    StoreUnavailable,
    TimedOut,
    WrongInput,
)
from agentkit.graph.conditions import Condition
from agentkit.graph.nodes import LocalNode, Node, PaidNode, SourceNode, SplitNode
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.blobs import INLINE_BYTES, beside
from agentkit.journal.events import Produced
from agentkit.journal.run_state import RunState
from agentkit.market.seams import Event, Transaction
from agentkit.runtime import hints, local_nodes, resolve
from agentkit.runtime.context import Means
from agentkit.runtime.deadline import Deadline, within
from agentkit.runtime.function_threads import Threads
from agentkit.runtime.paid_nodes import Bought, Paid
from agentkit.runtime.retry import FIRST_WAIT, again
from agentkit.runtime.sourcing import Buyer
from agentkit.runtime.worker_pool import Crew

T = TypeVar("T")

OUR_PACKAGE = Path(__file__).resolve().parents[1]
CANCELLED_FROM_INSIDE = "it was cancelled by itself, or by something it called"

CANCEL_POLL = 0.5
"""Seconds between looks for another process's request to cancel."""

MOST_IN_ONE_EVENT = 64
"""Nodes that are recorded by one event: one row, one hash and one insert for all of them."""

HERE_AT_ONCE = 64
"""Nodes on this machine that are under way at once; a thread runs each function that blocks."""


class Execution:
    """Executes a run from its folded state to an end or a pause; owned by one process."""

    def __init__(self, means: Means, state: RunState, *, rebuy: bool = False) -> None:
        self._means, self.state = means, state
        self._deadline = Deadline(state.planned)
        self._buyer = Buyer(means, state, self._deadline, rebuy=rebuy)
        self._paid = Paid(means, state, self._buyer, self._tell)
        self._graph = state.planned.graph
        self._waiting = {name: len(above) for name, above in self._graph.parents.items()}
        self._children, self._functions = self._graph.children, self._graph.remembered
        self._unread = {name: len(below) for name, below in self._children.items()}
        self._outputs: dict[str, tuple[Artifact, ...]] = {}
        self._here = Crew(HERE_AT_ONCE, self._do_here, self._settle_idle)
        self._threads = Threads()
        self._live: dict[asyncio.Task[bool], str] = {}
        self._unsaved: list[_Ended] = []
        self._saving = 0
        self._idle = asyncio.Event()
        self._paused: RunPaused | None = None
        self._cancelled = self._leaving = False
        self.changed = asyncio.Event()

    def _tell(self) -> None:
        """Wake whoever waits for a change; each waits for its own next one."""
        self.changed.set()
        self.changed = asyncio.Event()

    # -- the whole -------------------------------------------------------------------------------

    async def go(self) -> None:
        """Execute to the end, a pause or a failure, and record which it was."""
        if self.state.outcome != "running":
            return
        watch = asyncio.create_task(self._watch_for_cancel())
        alarm = self._set_alarm()
        try:
            self._begin()
            await self._idle.wait()
            await self._buyer.settle_errands()
            await self._end()
        finally:
            self._leaving = True
            watch.cancel()
            if alarm:
                alarm.cancel()
            self._here.stop()
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

    def _set_alarm(self) -> asyncio.TimerHandle | None:
        """Pause the run when its deadline comes, if it has one."""
        left = self._deadline.left
        if left is None:
            return None
        return asyncio.get_running_loop().call_later(left, self._too_late)

    def _too_late(self) -> None:
        self._halt()
        run, why = self.state.run, "its deadline has passed"
        command = f"{self._command} --plan plan.json"
        self._pause(RunPaused(run, why, command, hint=hints.replan(run)))

    def _halt(self) -> None:
        """Have nothing more bought, and wait for no user's function: it may never return."""
        self._leaving = True
        self._buyer.stopping.set()
        self._here.stop()

    @property
    def _command(self) -> str:
        return hints.command_for(self.state.run)

    def _begin(self) -> None:
        ended = self.state.done.keys() | self.state.skipped.keys()
        for name in ended:
            for parent in self._graph.parents[name]:
                self._unread[parent] -= 1
            for child in self._children[name]:
                self._waiting[child] -= 1
        for node in self._graph.nodes:
            if not self._waiting[node.name] and node.name not in ended:
                self._start(node)
        self._settle_idle()

    def _start(self, node: Node) -> None:
        if self._paused or self._cancelled or self.state.failures:
            return
        if self.state.skipped and (lost := self._lost_input(node)):
            self._skip(node.name, f"{lost} was skipped")
        elif isinstance(node, PaidNode):
            task = asyncio.create_task(self._buy_node(node))
            self._live[task] = node.name
            task.add_done_callback(self._ended)
        else:
            self._here.add(node)

    def _lost_input(self, node: Node) -> str:
        """Return the name of a skipped node that this one depends on, "" for none."""
        parents = self._graph.parents[node.name]
        return next((parent for parent in parents if parent in self.state.skipped), "")

    def _ended(self, task: asyncio.Task[bool]) -> None:
        name = self._live.pop(task)
        if task.cancelled():
            if not self._leaving:
                self._failed(name, RuntimeError(CANCELLED_FROM_INSIDE))
        elif error := task.exception():
            self._failed(name, error)
        elif task.result():
            self._release(name)
        self._settle_idle()

    def _failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, RunPaused):
            self._pause(error)
        elif isinstance(error, StateError):
            hint = hints.after(error, self.state.run)
            self._pause(RunPaused(self.state.run, str(error), self._command, hint=hint))
        elif isinstance(self._graph.by_name[name], LocalNode | SourceNode):
            self._pause(self._to_mend(name, error))
        else:
            self.state.apply(_failure(name, error))
            self._buyer.open_nothing_more()

    def _to_mend(self, name: str, error: BaseException) -> RunPaused:
        """Return the pause for what the user brought and can mend: a function, or a file."""
        reason = str(error) if isinstance(error, TimedOut) else _reason(error)
        why = f"{name}: {reason}"
        hint = hints.mend(self.state.run, self._graph.by_name[name])
        return RunPaused(self.state.run, why, self._command, hint=hint, mend=name)

    def _release(self, name: str) -> None:
        """Start what waited for a node alone; its outputs are durable."""
        waiting, known = self._waiting, self._graph.by_name
        for child in self._children[name]:
            waiting[child] -= 1
            if not waiting[child]:
                self._start(known[child])

    def _pause(self, why: RunPaused) -> None:
        """Keep the first reason to pause, but an uncertain purchase before any other.

        What a person has to mend stops all buying: it may make the rest of the run worth nothing.
        """
        if why.mend:
            self._buyer.open_nothing_more()
        if self._paused is None or (why.uncertain and not self._paused.uncertain):
            self._paused = why
        self._settle_idle()

    def _settle_idle(self) -> None:
        if not (self._live or self._here.busy or self._unsaved or self._saving):
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
        elif state.settled == len(self._graph.nodes):
            await self._cancel_open("another attempt delivered")
            await self._record(e.RunFinished(outcome="done"), release=True)
        else:
            why = self._paused or RunPaused(state.run, "it came to no end", self._command)
            uncertain = why.uncertain or bool(state.unresolved)
            command = why.command if why.uncertain == uncertain else ""
            hint = why.advice if why.uncertain == uncertain or why.mend else ""
            paused = e.RunPaused(
                why=why.why, uncertain=uncertain, command=command, hint=hint, mend=why.mend
            )
            await self._record(paused, release=False)

    async def _record(self, *events: Event, release: bool) -> None:
        def work(tx: Transaction) -> None:
            for event in events:
                tx.append(self.state.run, event)
                if isinstance(event, e.RunPaused) and event.mend and not event.uncertain:
                    self._means.ledger.reduce(tx, self.state.run, self.state.rest)
            if release:
                self._means.ledger.release(tx, self.state.run)

        await self._means.journal.commit(work)
        for event in events:
            self.state.apply(event)
        self._tell()

    async def _cancel_open(self, why: str) -> None:
        for purchase in self.state.purchases.values():
            for attempt in list(purchase.open.values()):
                with suppress(PaymentError):  # its end must not keep the run from its own
                    await self._buyer.cancel(attempt, why)

    async def _watch_for_cancel(self) -> None:
        run, journal = self.state.run, self._means.journal
        asked = None
        while not asked:
            await asyncio.sleep(CANCEL_POLL)  # the request is another process's
            with suppress(StateError):  # the next look may find the file well again
                asked = await journal.commit(lambda tx: tx.get(r.CancelRequest, run))
        self.cancel()

    # -- nodes on this machine -------------------------------------------------------------------

    async def _do_here(self, node: Node) -> None:
        try:
            if node.when and await self._ruled_out(node):
                return
            inputs = await self._inputs(node)
            try:
                outputs = await self._in_time(node, self._make(node, inputs))
            except Exception as wrong:  # users' functions may raise anything
                if not node.retries or not _may_pass(wrong):
                    raise
                outputs = await self._make_again(node, inputs)
            if outputs[0].size > INLINE_BYTES or len(outputs) > 1:  # most need not even be asked
                outputs = await self._means.put(outputs)
            self._save(node.name, outputs)
        except asyncio.CancelledError:
            if self._leaving:
                raise
            self._failed(node.name, RuntimeError(CANCELLED_FROM_INSIDE))
        except Exception as wrong:  # noqa: BLE001  # as above
            self._failed(node.name, wrong)

    def _in_time(
        self, node: Node, making: Awaitable[tuple[Artifact, ...]]
    ) -> Awaitable[tuple[Artifact, ...]]:
        """Bound the making of outputs where the node says so."""
        return making if node.timeout is None else _within(node.limits.execute, making)

    async def _make_again(self, node: Node, inputs: resolve.Inputs) -> tuple[Artifact, ...]:
        """Make a node's outputs after a first failure, as often as its retries allow."""
        await self._buyer.sleep(FIRST_WAIT)
        async for one in again(node.retries - 1, _may_pass, self._buyer.sleep):
            with one:
                return await self._in_time(node, self._make(node, inputs))
        raise AssertionError(node.name)

    async def _make(self, node: Node, inputs: resolve.Inputs) -> tuple[Artifact, ...]:
        match node:
            case LocalNode():
                key = (node.name, "fn")  # looked up here first: on a model it takes as long again
                function = self._functions.get(key) or self._graph.function(*key)
                return (await local_nodes.call(node, function, inputs, self._threads),)
            case SourceNode():
                return (await local_nodes.source(node, self._means.folder, self._means.read),)
            case SplitNode():
                return await asyncio.to_thread(local_nodes.split, node, _as_table(inputs["table"]))
            case _:
                raise TypeError(f"{node.name} is done by a provider")

    def _save(self, name: str, outputs: tuple[Artifact, ...]) -> None:
        produced = tuple(map(Produced.of, outputs))
        done = e.NodeDone(node=name, outputs=produced)
        self._ends(_Ended(name, done, outputs, beside(outputs, produced)))

    def _skip(self, name: str, why: str) -> None:
        self._ends(_Ended(name, e.NodeSkipped(node=name, why=why)))

    def _ends(self, ended: _Ended) -> None:
        """Record the end of a node together with those of all that are ready to be done."""
        self._unsaved.append(ended)
        if not self._here.waiting:
            self._flush()
        elif len(self._unsaved) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if not self._unsaved:
            return
        ready, self._unsaved = self._unsaved, []
        self._saving += 1
        run, events = self.state.run, _in_few(ready)
        self._means.journal.post(
            lambda tx: _record_ends(tx, run, ready, events),
            lambda wrong: self._saved(ready, events, wrong),
        )

    def _saved(
        self, ready: list[_Ended], events: list[e.NodesEnded], wrong: Exception | None
    ) -> None:
        self._saving -= 1
        if wrong is not None:
            self._failed(ready[0].name, wrong)
        else:
            for event in events:
                self.state.apply(event)
            for name, _, outputs, _ in ready:
                if outputs and self._unread[name]:
                    self._outputs[name] = outputs
                self._release(name)
        self._tell()
        self._settle_idle()

    # -- inputs ----------------------------------------------------------------------------------

    async def _inputs(self, node: Node) -> dict[str, Artifact]:
        """Return what a node reads; what no other node will read is let go."""
        known, unread = self._outputs, self._unread
        inputs = {}
        for what, source, output in self._graph.wires[node.name]:
            if source not in known:  # an earlier process made them, or they were bought
                known[source] = await self._means.get_all(self.state.done[source])
            inputs[what] = known[source][output]
        for parent in self._graph.parents[node.name]:
            unread[parent] -= 1
            if not unread[parent]:
                known.pop(parent, None)
        return inputs

    async def _outputs_of(self, name: str) -> tuple[Artifact, ...]:
        if name not in self._outputs:
            self._outputs[name] = await self._means.get_all(self.state.done[name])
        return self._outputs[name]

    # -- bought nodes and conditions ---------------------------------------------------------------

    async def _buy_node(self, node: Bought) -> bool:
        """Do a node that providers do; returns whether its end is recorded already."""
        if await self._ruled_out(node):
            return False
        outputs = await self._paid.do(node, await self._inputs(node))
        if outputs is not None:
            self._save(node.name, await self._means.put(outputs))
        return outputs is None

    async def _ruled_out(self, node: Node) -> bool:
        """Whether a condition keeps a node from being done, which is then recorded."""
        for condition, function in self._graph.conditions(node.name) if node.when else ():
            (value, *_) = await self._outputs_of(condition.ref.node)
            assert isinstance(value, Json)  # the graph was checked
            if not self._holds(node, condition, value.value, function):
                self._skip(node.name, f"{condition} did not hold")
                return True
        return False

    def _holds(
        self,
        node: Node,
        condition: Condition,
        value: Any,
        function: Callable[[Any], Any] | None,
    ) -> bool:
        """Return whether a condition holds; raises RunPaused when the user's function fails."""
        if function is None:
            return condition.holds_for(value, None)
        try:
            return condition.holds_for(value, function)
        except Exception as error:  # users' functions may raise anything
            raise self._to_mend(node.name, error) from error


class _Ended(NamedTuple):
    """A node at its end and not yet recorded: what will be, its outputs, and bytes to keep."""

    name: str
    event: e.NodeDone | e.NodeSkipped
    outputs: tuple[Artifact, ...] = ()
    kept: tuple[bytes, ...] = ()


def _in_few(ready: list[_Ended]) -> list[e.NodesEnded]:
    """Return the ends of nodes as few events."""
    starts = range(0, len(ready), MOST_IN_ONE_EVENT)
    parts = [[end.event for end in ready[start : start + MOST_IN_ONE_EVENT]] for start in starts]
    return [
        e.NodesEnded(
            done=tuple([x for x in part if isinstance(x, e.NodeDone)]),
            skipped=tuple([x for x in part if isinstance(x, e.NodeSkipped)]),
        )
        for part in parts
    ]


def _record_ends(
    tx: Transaction, run: str, ready: list[_Ended], events: list[e.NodesEnded]
) -> None:
    for end in ready:
        for data in end.kept:
            tx.keep(data)
    for event in events:
        tx.append(run, event)


def _may_pass(wrong: BaseException) -> bool:
    """Whether trying again may help: most errors of ours say what will stay wrong."""
    return not isinstance(wrong, AgentKitError) or isinstance(wrong, StoreUnavailable | TimedOut)


async def _within(seconds: float | None, making: Awaitable[T]) -> T:
    async with within(seconds, lambda s: ExecuteTimedOut(s, provider="this machine")):
        return await making


def _failure(node: str, error: BaseException) -> Event:
    return e.NodeFailed(node=node, error=type(error).__name__, reason=_reason(error))


def _reason(error: BaseException) -> str:
    return _with_hint(error) if isinstance(error, AgentKitError) else _with_place(error)


def _with_hint(error: AgentKitError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _with_place(error: BaseException) -> str:
    """Name an error of a user's function, and the line of it that failed.

    Frames of our own are left out, and all that lead to the function: where the call itself
    fails, no line of the user's is at fault.
    """
    frames = list(traceback.extract_tb(error.__traceback__))
    callers = [n for n, frame in enumerate(frames) if frame.filename == local_nodes.__file__]
    frames = [
        frame
        for frame in frames[callers[-1] + 1 if callers else 0 :]
        if OUR_PACKAGE not in Path(frame.filename).parents
    ]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _as_table(artifact: Artifact) -> Table:
    if not isinstance(artifact, Table):
        raise WrongInput(f"a {type(artifact).__name__} has no rows")
    return artifact
