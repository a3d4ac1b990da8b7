"""Starting and resuming runs, and the handle on one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from agentkit.errors import OverBudget
from agentkit.graph.callables import Consent
from agentkit.graph.frozen import FrozenGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.lease import Lease
from agentkit.journal.run_state import RunState
from agentkit.market.plan import Plan
from agentkit.market.seams import Event, Transaction
from agentkit.money import Money
from agentkit.runtime.context import Resources, RunContext
from agentkit.runtime.event_stream import OwnRun, follow, line_of
from agentkit.runtime.history import read_checked
from agentkit.runtime.result import RunResult, result_of
from agentkit.runtime.resumption import Changes, approvals, changes_of, check_resources
from agentkit.runtime.run_log import RunLog
from agentkit.runtime.scheduler import Scheduler


class Run:
    """A run this process executes: watch it, await its result, stop or cancel it."""

    def __init__(self, context: RunContext, lease: Lease, *, cancelled: bool = False) -> None:
        self._context, self._lease = context, lease
        self._scheduler = Scheduler(context)
        if cancelled:  # before it starts anything
            self._scheduler.cancel()
        self._task = asyncio.create_task(self._execute())

    @property
    def id(self) -> str:
        return self._context.run

    @property
    def plan(self) -> Plan:
        return self._context.state.planned

    @property
    def status(self) -> RunState:
        """The state of the run as far as it is durable."""
        return self._context.state

    async def events(self) -> AsyncIterator[Event]:
        """Yield every event of the run from its first; a slow reader holds nothing back."""
        own = OwnRun(self._context.log, self._task)
        async for event in follow(self._context.resources.journal, self.id, own):
            yield event

    async def lines(self) -> AsyncIterator[str]:
        """Yield every event as one line of JSON: its name under `event`, then its fields."""
        async for event in self.events():
            yield line_of(event)

    async def raise_budget(self, budget: Money) -> None:
        """Let the run come to `budget` in all; raises OverBudget when that is less than held."""

        def work(tx: Transaction) -> tuple[list[Event], None]:
            _check_budget(tx, self.id, budget)
            return [e.BudgetRaised(budget=budget)], None

        await self._context.log.commit(work)

    async def ended(self) -> None:
        """Wait until the run has ended or paused; raises StateError when it cannot go on."""
        await asyncio.shield(self._task)

    async def result(self) -> RunResult:
        """Wait for the end; raises RunFailed, RunPaused, or StateError when it cannot go on."""
        await self.ended()
        return await result_of(self._context.resources, self._context.state)

    def on_end(self, told: Callable[[Run], None]) -> None:
        """Have `told` called with this run when it has ended or paused."""
        self._task.add_done_callback(lambda _: told(self))

    async def stop(self) -> None:
        """Pause: buy nothing more, leave only what can be found again, record where it stands."""
        self._scheduler.stop()
        await asyncio.wait([self._task])

    async def cancel(self) -> None:
        """End the run for good; open attempts are cancelled at their providers."""
        self._scheduler.cancel()
        await asyncio.wait([self._task])

    async def _execute(self) -> None:
        try:
            await self._scheduler.execute()
        finally:
            self._lease.close()


async def start(resources: Resources, plan: Plan, *, trust_code: Collection[str] = ()) -> Run:
    """Reserve the plan's worst case and begin.

    `trust_code`: sha256 of files that may be loaded because the graph names them.  Raises
    OverBudget, UntrustedCode, WrongInput (a function of the graph cannot be found) and ConfigError
    (a verifier is not installed) with nothing spent.
    """
    plan.graph.adopt(None, consent=Consent.to(trust_code))
    check_resources(resources, plan, plan.graph.by_name.keys())
    run = f"r{secrets.token_hex(4)}"
    started = e.RunStarted(plan=plan, code=tuple(sorted(plan.graph.code_digests())))
    log = RunLog(resources.journal, RunState(run))

    def work(tx: Transaction) -> tuple[list[Event], None]:
        resources.ledger.hold(tx, run, plan.at_most, plan.budget)
        return [started], None

    lease = resources.journal.lease(run)
    try:
        await log.commit(work)
        return Run(RunContext.of(resources, log), lease)
    except BaseException:
        lease.close()
        raise


async def resume(
    resources: Resources,
    run: str,
    *,
    plan: Plan | None = None,
    graph: FrozenGraph | None = None,
    budget: Money | None = None,
    approved: Sequence[str] = (),
    rebuy: bool = False,
    trust_code: Collection[str] = (),
) -> Run:
    """Go on with a run where its journal stands, under a new plan if one is given.

    `graph` supplies functions that only the process which makes it has, or whose code was changed
    since, in nodes that are not done.  `budget` raises the run's; `approved` names nodes that
    somebody agreed to.  Files that ran when the run began may be loaded again, and those whose
    sha256 `trust_code` names; functions in these may have changed, too.  What changed is
    journalled.  Raises RunNotFound, RunPaused when another process has it, JournalDamaged,
    OverBudget, UntrustedCode, WrongInput (a function of the graph cannot be found, or has changed
    in a node that is done, or the plan is of another graph).
    """
    lease = resources.journal.lease(run)
    try:
        log = RunLog(resources.journal, await read_checked(resources.journal, run))
        state = log.state
        cancelled = False
        if state.outcome in ("running", "paused"):
            cancelled = await _is_cancelled(resources, run)
            changes = changes_of(
                resources, state, plan=plan, graph=graph, trust_code=trust_code, ends=cancelled
            )
            await _record_resume(resources, log, changes, budget, approved)
        return Run(RunContext.of(resources, log, rebuy=rebuy), lease, cancelled=cancelled)
    except BaseException:
        lease.close()
        raise


async def _is_cancelled(resources: Resources, run: str) -> bool:
    """Return whether somebody asked for the end of a run while no process had it."""
    asked = await resources.journal.commit(lambda tx: tx.get(r.CancelRequest, run))
    return asked is not None


async def _record_resume(
    resources: Resources,
    log: RunLog,
    changes: Changes,
    budget: Money | None,
    approved: Sequence[str],
) -> None:
    """Commit what a resume changes: the plan and its hold, the budget, what was agreed to."""
    state, plan = log.state, changes.plan
    events: list[Event] = [e.RunResumed(plan=plan, code=tuple(sorted(changes.code - state.code)))]
    if budget:
        events.append(e.BudgetRaised(budget=budget))
    events += approvals(plan or state.planned, approved)

    def work(tx: Transaction) -> tuple[list[Event], None]:
        if plan:
            _hold_for_rest(resources, tx, plan, state)
        if budget:
            _check_budget(tx, state.run, budget)
        return events, None

    await log.commit(work)


def _hold_for_rest(resources: Resources, tx: Transaction, plan: Plan, state: RunState) -> None:
    """Hold what a new plan can still come to: nodes and items that are done need nothing."""
    hold = tx.get(r.Hold, state.run)
    held = hold.left.units if hold else 0
    missing = sum(state.rest_of(node) for node in plan.nodes) - held
    if missing > 0:
        amount = Money(missing, plan.at_most.asset)
        resources.ledger.hold(tx, state.run, amount, plan.budget)


def _check_budget(tx: Transaction, run: str, budget: Money) -> None:
    """Raise OverBudget for a budget below what the run holds and has spent."""
    hold = tx.get(r.Hold, run)
    if hold and hold.left + hold.spent > budget:
        raise OverBudget("budget", hold.left + hold.spent, budget)
