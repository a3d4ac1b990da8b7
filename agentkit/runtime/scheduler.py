"""Which node may start, and how the run ends.

A node starts once the events of its inputs are durable, and not before.  Starting a run and
resuming it are the same: what the folded state already has is not done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from agentkit.errors import RunPaused, StateError
from agentkit.graph.nodes import PaidNode
from agentkit.graph.registry import Node
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.run_state import RunState
from agentkit.kinds.registry import kind_of
from agentkit.market.seams import Event, Transaction
from agentkit.runtime import hints
from agentkit.runtime.attempt.attempts import Attempts
from agentkit.runtime.context import RunContext
from agentkit.runtime.endings import Endings, NodeEnd
from agentkit.runtime.failures import failure, to_mend
from agentkit.runtime.inputs import NodeInputs
from agentkit.runtime.local_nodes import CANCELLED_FROM_INSIDE, LocalNodes
from agentkit.runtime.paid_nodes import PaidNodes
from agentkit.runtime.sourcing import Sourcing

CANCEL_POLL = 0.5
"""Seconds between looks for another process's request to cancel."""


class Scheduler:
    """Executes a run from its folded state to an end or a pause; owned by one process."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._graph = context.state.planned.graph
        self._inputs = NodeInputs(context)
        self._attempts = Attempts(context)
        self._paid_nodes = PaidNodes(context, Sourcing(context, self._attempts), self._inputs)
        self._endings = Endings(
            context.log,
            recorded=self._release_all,
            failed=self._fail,
            is_more_ready=lambda: self._local_nodes.is_more_ready,
        )
        self._local_nodes = LocalNodes(
            context,
            self._inputs,
            finish=self._endings.add,
            fail=self._fail,
            rested=self._check_idle,
        )
        self._parents_left = {name: len(above) for name, above in self._graph.parents.items()}
        self._buying: dict[asyncio.Task[NodeEnd | None], str] = {}
        self._idle = asyncio.Event()
        self._failures: dict[str, e.NodeFailed] = {}
        self._paused: RunPaused | None = None
        self._cancelled = False
        self._leaving = False

    @property
    def state(self) -> RunState:
        """The state of the run as far as it is durable."""
        return self._context.state

    # -- the whole -------------------------------------------------------------------------------

    async def execute(self) -> None:
        """Execute to the end, a pause or a failure, and record which it was."""
        if self.state.outcome != "running":
            return
        watch = asyncio.create_task(self._watch_for_cancel())
        alarm = self._set_alarm()
        try:
            self._begin()
            await self._idle.wait()
            await self._attempts.errands.wait()
            await self._record_outcome()
        finally:
            self._leaving = True
            watch.cancel()
            if alarm:
                alarm.cancel()
            self._local_nodes.stop()
            for task in self._buying:
                task.cancel()
            self._local_nodes.close()

    def stop(self) -> None:
        """Start no new attempt and wait for nothing; `execute` then records a pause."""
        self._stop_everything()
        self._pause(self._context.stop.paused("it was asked to stop"))

    def cancel(self) -> None:
        """Stop for good; `execute` then cancels open attempts at their providers."""
        self._cancelled = True
        self._stop_everything()
        self._check_idle()

    def _stop_everything(self) -> None:
        self._leaving = True
        self._context.stop.stop()
        self._local_nodes.stop()

    def _set_alarm(self) -> asyncio.TimerHandle | None:
        """Have the run paused when its deadline comes, if it has one."""
        left = self._context.deadline.left
        if left is None:
            return None
        return asyncio.get_running_loop().call_later(left, self._pause_at_deadline)

    def _pause_at_deadline(self) -> None:
        """Stop at the run's deadline; a new plan may give it another."""
        self._stop_everything()
        self._pause(
            self._context.stop.paused(
                "its deadline has passed",
                flag="--plan plan.json",
                hint=hints.replan(self._context.run),
            )
        )

    async def _watch_for_cancel(self) -> None:
        """Cancel the run when another process has asked for it."""
        run, journal = self._context.run, self._context.resources.journal
        asked = None
        while not asked:
            await asyncio.sleep(CANCEL_POLL)
            with suppress(StateError):  # the next look may find the file readable again
                asked = await journal.commit(lambda tx: tx.get(r.CancelRequest, run))
        self.cancel()

    # -- nodes -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start every node whose inputs are durable, among those that are not done."""
        ended = self.state.done.keys() | self.state.skipped.keys()
        for name in ended:
            self._inputs.forget_reader(name)
            for child in self._graph.children[name]:
                self._parents_left[child] -= 1
        for node in self._graph.nodes:
            if not self._parents_left[node.name] and node.name not in ended:
                self._start(node)
        self._check_idle()

    def _start(self, node: Node) -> None:
        """Start a node, unless the run is about to end or a node that it reads was skipped."""
        if self._paused or self._cancelled or self._failures:
            return
        if self.state.skipped and (parent := self._skipped_parent(node)):
            self._endings.add(NodeEnd.skipped(node.name, f"{parent} was skipped"))
        elif isinstance(node, PaidNode):
            task = asyncio.create_task(self._paid_nodes.do(node))
            self._buying[task] = node.name
            task.add_done_callback(self._bought)
        else:
            self._local_nodes.add(node)

    def _skipped_parent(self, node: Node) -> str:
        """Return the name of a skipped node that this one depends on, "" for none."""
        parents = self._graph.parents[node.name]
        return next((parent for parent in parents if parent in self.state.skipped), "")

    def _bought(self, task: asyncio.Task[NodeEnd | None]) -> None:
        """Take how a bought node ended."""
        name = self._buying.pop(task)
        if task.cancelled():
            if not self._leaving:
                self._fail(name, RuntimeError(CANCELLED_FROM_INSIDE))
        elif error := task.exception():
            self._fail(name, error)
        elif end := task.result():
            self._endings.add(end)
        else:
            self._release(name)
        self._check_idle()

    def _release_all(self, ends: Sequence[NodeEnd]) -> None:
        """Go on after nodes whose ends are durable."""
        for end in ends:
            self._inputs.keep(end.node, end.outputs)
            self._release(end.node)
        self._check_idle()

    def _release(self, name: str) -> None:
        """Start the nodes that waited for this one alone."""
        for child in self._graph.children[name]:
            self._parents_left[child] -= 1
            if not self._parents_left[child]:
                self._start(self._graph.by_name[child])

    def _fail(self, name: str, error: BaseException) -> None:
        """Pause the run at what a person can mend and go on from; let it fail at anything else."""
        stop = self._context.stop
        node = self._graph.by_name[name]
        if isinstance(error, RunPaused):
            self._pause(error)
        elif isinstance(error, StateError):
            self._pause(stop.paused(str(error), hint=hints.after(error, self._context.run)))
        elif kind_of(node).can_be_mended:
            self._pause(to_mend(stop, node, error))
        else:
            self._failures[name] = failure(name, error)
            stop.close()
        self._check_idle()

    def _pause(self, pause: RunPaused) -> None:
        """Keep the first reason to pause, but an uncertain purchase before any other."""
        if pause.mend:
            self._context.stop.close()  # a mended function may make the rest of the run worthless
        if self._paused is None or (pause.uncertain and not self._paused.uncertain):
            self._paused = pause
        self._check_idle()

    def _check_idle(self) -> None:
        """End the waiting once nothing is under way."""
        if not (self._buying or self._local_nodes.busy or self._endings.busy):
            self._idle.set()

    # -- the end ---------------------------------------------------------------------------------

    async def _record_outcome(self) -> None:
        """Record which of the four ways the run ended."""
        if self._cancelled:
            await self._finish("cancelled", "the run was cancelled")
        elif self._failures:
            await self._finish("failed", "the run failed", *self._failures.values())
        elif self.state.settled == len(self._graph.nodes):
            await self._finish("done", "another attempt delivered")
        else:
            await self._record_pause()

    async def _finish(
        self, outcome: Literal["done", "failed", "cancelled"], why_cancel: str, *events: Event
    ) -> None:
        """Close what is open, release the hold, and record the end of the run."""
        for purchase in list(self.state.purchases):
            await self._attempts.closing.cancel_all(purchase, why_cancel)

        def work(tx: Transaction) -> tuple[Sequence[Event], None]:
            self._context.ledger.release(tx, self._context.run)
            return [*events, e.RunFinished(outcome=outcome)], None

        await self._context.log.commit(work)

    async def _record_pause(self) -> None:
        """Record why the run paused; what waits to be mended keeps only the hold that it needs."""
        pause = self._paused or self._context.stop.paused("it stopped before every node finished")
        uncertain = pause.uncertain or bool(self.state.unresolved)
        # Command and hint of another reason do not resume a run with an uncertain purchase.
        fits = pause.uncertain == uncertain
        event = e.RunPaused(
            why=pause.why,
            uncertain=uncertain,
            command=pause.command if fits else "",
            hint=pause.advice if fits or pause.mend else "",
            mend=pause.mend,
        )

        def work(tx: Transaction) -> tuple[Sequence[Event], None]:
            if event.mend and not event.uncertain:
                self._context.ledger.reduce(tx, self._context.run, self.state.rest)
            return [event], None

        await self._context.log.commit(work)
