"""The handle on a run, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from agentkit.artifacts import Artifact
from agentkit.errors import (
    ConfigError,
    OverBudget,
    RunFailed,
    RunNotFound,
    RunPaused,
    UnknownInput,
    WrongInput,
)
from agentkit.graph.callables import CallableSpec, Consent
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import PaidNode
from agentkit.graph.refs import Ref
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.journal.lease import Lease
from agentkit.journal.run_state import RunState
from agentkit.market.plan import Plan
from agentkit.market.receipt import Receipt, Standing
from agentkit.market.seams import Event, Transaction
from agentkit.money import Money
from agentkit.runtime.context import Means
from agentkit.runtime.scheduler import Execution
from agentkit.runtime.verifiers import verifiers_of

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True, repr=False)
class RunResult:
    """What a finished run produced and what it cost.

    `skipped` says by node why it was not done, `skipped_items` by node and number of its row.
    """

    run_id: str
    plan: Plan
    artifacts: Mapping[str, tuple[Artifact, ...]]
    receipts: tuple[Receipt, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    skipped_items: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @overload
    def __getitem__(self, ref: Ref[A]) -> A: ...

    @overload
    def __getitem__(self, ref: str) -> Artifact: ...

    def __getitem__(self, ref: Ref[Any] | str) -> Artifact:
        """Return the artifact of a ref, or the first output of a node by name.

        Raises UnknownInput for a node that there is not, or that was skipped.
        """
        name, output = (ref, 0) if isinstance(ref, str) else (ref.node, ref.output)
        if name in self.skipped:
            raise UnknownInput(
                f"node {name!r} was skipped: {self.skipped[name]}",
                hint=f"look at result.skipped before result[{name!r}]",
            )
        if name not in self.artifacts:
            raise UnknownInput(f"the run had no node {name!r}")
        return self.artifacts[name][output]

    def __repr__(self) -> str:
        return f"<RunResult {self.run_id}: {len(self.artifacts)} nodes, paid {self.paid}>"

    @property
    def paid(self) -> Money:
        """What was paid; neither what others bill nor what is uncertain."""
        return self.total("paid")

    @property
    def uncertain(self) -> Money:
        """What counts as spent although nobody can say whether it bought anything."""
        return self.total("uncertain")

    @property
    def billed_elsewhere(self) -> Money:
        """What providers bill by themselves, at the configured prices."""
        return self.total("billed elsewhere")

    def total(self, standing: Standing) -> Money:
        """Return the sum of the receipts of one standing."""
        return total(self.receipts, standing, self.plan.price)

    def data(self) -> dict[str, Any]:
        """Return what was done and paid as plain JSON."""
        return {
            "run": self.run_id,
            "paid": str(self.paid),
            "uncertain": str(self.uncertain),
            "billed_elsewhere": str(self.billed_elsewhere),
            "nodes": {name: [a.digest for a in outs] for name, outs in self.artifacts.items()},
            "skipped": dict(self.skipped),
            "skipped_items": {node: dict(items) for node, items in self.skipped_items.items()},
        }

    def summary(self) -> str:
        """Return `data` as text, for notes and logs."""
        return json.dumps(self.data())


def total(receipts: Sequence[Receipt], standing: Standing, like: Money) -> Money:
    """Return the sum of the receipts of one standing, in the asset of `like`."""
    units = sum(receipt.amount.units for receipt in receipts if receipt.standing == standing)
    return Money(units, like.asset)


class Run:
    """A run this process executes: watch it, await its result, stop or cancel it."""

    def __init__(self, means: Means, execution: Execution, lease: Lease) -> None:
        self._means, self._execution, self._lease = means, execution, lease
        self._task = asyncio.create_task(self._execute())

    @property
    def id(self) -> str:
        return self._execution.state.run

    @property
    def plan(self) -> Plan:
        return self._execution.state.planned

    @property
    def status(self) -> RunState:
        """The state of the run as far as it is durable."""
        return self._execution.state

    async def events(self) -> AsyncIterator[Event]:
        """Yield every event of the run from its first; a slow reader holds nothing back."""
        position = 0
        while True:
            changed, ended = self._execution.changed, self._task.done()
            events = await self._means.journal.events(self.id, position, 500)
            for position, event in events:  # noqa: B007  # it is where to go on from
                for part in event.parts():
                    yield part
            if events:
                continue
            if ended:
                return
            waiter = asyncio.ensure_future(changed.wait())
            await asyncio.wait([waiter, self._task], return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()

    async def lines(self) -> AsyncIterator[str]:
        """Yield every event as one line of JSON: its name under `event`, then its fields."""
        async for event in self.events():
            yield line_of(event)

    async def raise_budget(self, budget: Money) -> None:
        """Let the run come to `budget` in all; raises OverBudget when that is less than held."""
        event = e.BudgetRaised(budget=budget)

        def work(tx: Transaction) -> None:
            _check_budget(tx, self.id, budget)
            tx.append(self.id, event)

        await self._means.journal.commit(work)
        self.status.apply(event)

    async def ended(self) -> None:
        """Wait until the run has ended or paused; raises StateError when it cannot go on."""
        await asyncio.shield(self._task)

    async def result(self) -> RunResult:
        """Wait for the end; raises RunFailed, RunPaused, or StateError when it cannot go on."""
        await self.ended()
        return await result_of(self._means, self._execution.state)

    def on_end(self, told: Callable[[Run], None]) -> None:
        """Have `told` called with this run when it has ended or paused."""
        self._task.add_done_callback(lambda _: told(self))

    async def stop(self) -> None:
        """Pause: buy nothing more, leave only what can be found again, record where it stands."""
        self._execution.stop()
        await asyncio.wait([self._task])

    async def cancel(self) -> None:
        """End the run for good; open attempts are cancelled at their providers."""
        self._execution.cancel()
        await asyncio.wait([self._task])

    async def _execute(self) -> None:
        try:
            await self._execution.go()
        finally:
            self._lease.close()


def line_of(event: Event) -> str:
    """Return an event as one line of JSON."""
    fields = json.loads(event.encode())
    return json.dumps({"event": type(event).__name__, **fields}, ensure_ascii=False)


def _check_budget(tx: Transaction, run: str, budget: Money) -> None:
    hold = tx.get(r.Hold, run)
    if hold and hold.left + hold.spent > budget:
        raise OverBudget("budget", hold.left + hold.spent, budget)


async def start(means: Means, plan: Plan, *, trust_code: Collection[str] = ()) -> Run:
    """Reserve the plan's worst case and begin.

    `trust_code`: sha256 of files that may be loaded because the graph names them.  Raises
    OverBudget, UntrustedCode, WrongInput (a function of the graph cannot be found) and ConfigError
    (a verifier is not installed) with nothing spent.
    """
    plan.graph.adopt(None, consent=Consent.to(trust_code))
    _check_means(means, plan, plan.graph.by_name.keys())
    run = f"r{secrets.token_hex(4)}"
    started = e.RunStarted(plan=plan, code=tuple(sorted(plan.graph.code_digests())))
    lease = means.journal.lease(run)

    def work(tx: Transaction) -> None:
        means.ledger.hold(tx, run, plan.at_most, plan.budget)
        tx.append(run, started)

    try:
        await means.journal.commit(work)
    except BaseException:
        lease.close()
        raise
    state = RunState(run)
    state.apply(started)
    return Run(means, Execution(means, state), lease)


async def resume(
    means: Means,
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
    lease = means.journal.lease(run)
    try:
        state = _folded(means.journal, run, await means.journal.checked(run))
        if state.outcome in ("done", "failed", "cancelled"):
            return Run(means, Execution(means, state), lease)
        plan = plan and _continued(plan, state)
        if graph and state.planned.graph.same_but_for_code(graph):
            plan = (plan or state.planned).model_copy(update={"graph": graph})
        ending = await means.journal.commit(lambda tx: tx.get(r.CancelRequest, run))
        code: frozenset[str] = frozenset()
        if not ending:
            before = (plan or state.planned).graph
            _check_done(before, state)
            consent = Consent.to(state.code, _functions_of(state.planned.graph), mended=trust_code)
            needed = before.by_name.keys() - state.done.keys()
            frozen = before.adopt(graph, needed, consent)
            if frozen is not before:
                plan = (plan or state.planned).model_copy(update={"graph": frozen})
            _check_means(means, plan or state.planned, needed)
            code = _code_from_now_on(frozen, needed, consent, own=graph is not None)
        events = [
            e.RunResumed(plan=plan, code=tuple(sorted(code - state.code))),
            *([e.BudgetRaised(budget=budget)] if budget else ()),
            *_approvals(plan or state.planned, state, approved),
        ]

        def work(tx: Transaction) -> None:
            if plan:
                _hold_for_rest(means, tx, plan, state)
            if budget:
                _check_budget(tx, run, budget)
            for event in events:
                tx.append(run, event)

        await means.journal.commit(work)
        for event in events:
            state.apply(event)
        execution = Execution(means, state, rebuy=rebuy)
        if ending:
            execution.cancel()
    except BaseException:
        lease.close()
        raise
    return Run(means, execution, lease)


def _check_done(graph: FrozenGraph, state: RunState) -> None:
    """Raise WrongInput for a graph that changes the functions of nodes that are done."""
    if graph is state.planned.graph:
        return
    changed = [name for name in state.planned.graph.changed_in(graph) if name in state.done]
    if changed:
        raise WrongInput(
            f"node {changed[0]!r} of run {state.run} is done, and its function is another now",
            hint=f"put back the function of {changed[0]!r}, or run the mended graph anew",
        )


def _code_from_now_on(
    graph: FrozenGraph, needed: Collection[str], consent: Consent, *, own: bool
) -> frozenset[str]:
    """Return the sha256 of files that this resume adds to what the run may load later.

    `own`: the functions are those of this process, which needs nobody's consent to them.
    """
    if not own and not consent.mended:
        return frozenset()
    digests = graph.code_digests(needed)
    return digests if own else digests & consent.digests


def _functions_of(graph: FrozenGraph) -> list[CallableSpec]:
    return [spec for node in graph.nodes for spec in node.callables().values()]


def _check_means(means: Means, plan: Plan, needed: Collection[str]) -> None:
    """Raise ConfigError for a verifier or a rail that the plan needs and is not set up.

    `needed` names the nodes that are still to be done.
    """
    for node in plan.graph.nodes:
        if isinstance(node, PaidNode) and node.verify and node.name in needed:
            verifiers_of(plan.graph.checks(node.name))
    for planned in plan.nodes:
        for offer in planned.offers if planned.offer else ():
            if offer.rail not in means.rails:
                raise ConfigError(
                    f"node {planned.name!r} is to be paid by {offer.rail!r}, which is not set up",
                    hint="open the agent with the settings the plan was made with, or plan again",
                )


def _approvals(plan: Plan, state: RunState, names: Sequence[str]) -> list[Event]:
    """Return that the user agreed to nodes; raises PlanError for one that there is not."""
    amounts = {name: plan.node(name).at_most for name in names}
    return [e.Approved(node=n, amount=a, by="resume") for n, a in amounts.items() if a]


def _continued(plan: Plan, state: RunState) -> Plan:
    """Return a new plan for a run, under the run's budget unless it has one of its own."""
    if plan.graph.shape != state.planned.graph.shape:
        raise WrongInput(
            f"the plan is for graph {plan.graph.digest[:6]}, and run {state.run} is of graph"
            f" {state.planned.graph.digest[:6]}",
            hint="plan the graph of the run, exactly as it was",
        )
    return plan if plan.budget else plan.model_copy(update={"budget": state.planned.budget})


def _hold_for_rest(means: Means, tx: Transaction, plan: Plan, state: RunState) -> None:
    """Hold what a new plan can still come to: nodes and items that are done need nothing."""
    hold = tx.get(r.Hold, state.run)
    missing = sum(map(state.rest_of, plan.nodes)) - (hold.left.units if hold else 0)
    if missing > 0:
        means.ledger.hold(tx, state.run, Money(missing, plan.at_most.asset), plan.budget)


async def read(journal: Journal, run: str) -> RunState:
    """Fold a run's stream; raises RunNotFound, JournalDamaged."""
    return _folded(journal, run, await journal.history(run))


def _folded(journal: Journal, run: str, events: Sequence[Event]) -> RunState:
    if not events:
        raise RunNotFound(f"there is no run {run!r} in {journal.path}")
    return RunState.of(run, events)


def pause_of(state: RunState) -> RunPaused:
    """Return what a paused run waits for, and what to do about it."""
    flag = " --rebuy" if state.uncertain else ""
    command = state.command or f"agentkit resume {state.run}{flag}"
    return RunPaused(
        state.run,
        state.why,
        command,
        uncertain=state.uncertain,
        hint=state.hint,
        mend=state.mend,
    )


async def result_of(means: Means, state: RunState) -> RunResult:
    """Return what a run left; raises RunFailed or RunPaused for one that is not done."""
    if state.outcome == "failed":
        failures = tuple(state.failures.items())
        raise RunFailed(state.run, failures, uncertain=bool(state.unresolved))
    if state.outcome == "cancelled":
        hint = "run the graph again if it is wanted after all"
        raise RunFailed(state.run, (), uncertain=bool(state.unresolved), hint=hint)
    if state.outcome != "done":
        raise pause_of(state)
    artifacts = {name: await means.get_all(outputs) for name, outputs in state.done.items()}
    return RunResult(
        state.run,
        state.planned,
        artifacts,
        tuple(state.receipts),
        state.skipped,
        state.skipped_items,
    )
