"""The state of a run: what its events say that it has done so far.

`resume`, `status` and `receipts` read it.  It is folded from the run's own stream, and it is
stored nowhere but in snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from agentkit.errors import RunNotFound
from agentkit.journal import events as e
from agentkit.journal.produced import Produced
from agentkit.market.attempt import Attempt
from agentkit.market.offer import Offer
from agentkit.market.plan import Plan, PlannedNode
from agentkit.market.receipt import RECEIVED, Receipt
from agentkit.market.seams import Event
from agentkit.money import Money

Outputs = tuple[Produced, ...]


@dataclass
class PurchaseAttempts:
    """The attempts made at one purchase, in order, and which of them are still open.

    `uncertain` counts the attempts whose outcome cannot be found out; `why` says of the last of
    them what happened.
    """

    attempts: list[Attempt] = field(default_factory=list)
    open: dict[str, Attempt] = field(default_factory=dict)
    uncertain: int = 0
    why: str = ""


@dataclass
class RunState:
    """A run as its events describe it; nothing but `apply` changes it.

    Its fields are part of the format of snapshots: `encode` writes them.
    """

    run: str
    plan: Plan | None = None
    offers: dict[str, Offer] = field(default_factory=dict)
    done: dict[str, Outputs] = field(default_factory=dict)
    items: dict[str, dict[int, Outputs]] = field(default_factory=dict)
    skipped_items: dict[str, dict[int, str]] = field(default_factory=dict)
    purchases: dict[str, PurchaseAttempts] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    approved: dict[str, Money] = field(default_factory=dict)
    outcome: Literal["running", "paused", "done", "failed", "cancelled"] = "running"
    why: str = ""
    uncertain: bool = False
    command: str = ""
    hint: str = ""
    mend: str = ""
    code: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, run: str, events: Iterable[Event]) -> RunState:
        """Fold a run's events."""
        state = cls(run)
        for event in events:
            state.apply(event)
        return state

    @property
    def planned(self) -> Plan:
        """The plan in force; raises RunNotFound for a run with no events."""
        if self.plan is None:
            raise RunNotFound(f"there is no run {self.run}")
        return self.plan

    @property
    def unresolved(self) -> set[str]:
        """The purchases with an attempt of unknown outcome that were not bought again since."""
        settled = {x.attempt.purchase for x in self.receipts if x.standing in RECEIVED}
        uncertain = {name for name, made in self.purchases.items() if made.uncertain}
        return uncertain - settled

    def apply(self, event: Event) -> None:
        """Change the state by one event; events that it does not depend on change nothing."""
        change = _CHANGES.get(type(event))
        if change is not None:
            change(event, self)

    @classmethod
    def read(cls, run: str, text: str) -> RunState:
        """Read what `encode` wrote; raises ValueError, also if it is the state of another run."""
        state = _codec().validate_json(text)
        if state.run != run:
            raise ValueError(f"it is the state of {state.run!r}, not of {run!r}")
        return state

    def encode(self) -> str:
        """Return the whole state as JSON."""
        return _codec().dump_json(self, exclude_defaults=True).decode()

    @property
    def produced(self) -> Iterator[Produced]:
        """Every artifact that nodes and items have produced."""
        for outputs in self.done.values():
            yield from outputs
        for items in self.items.values():
            for outputs in items.values():
                yield from outputs

    def follow(self, plan: Plan) -> None:
        """Go by a plan from now on; offers of earlier plans stay, for attempts still open."""
        self.plan = plan
        for node in plan.nodes:
            if node.offer:
                self.offers.update({offer.terms: offer for offer in node.offers})

    def attempts_at(self, purchase: str) -> PurchaseAttempts:
        """Return the attempts made at a purchase so far; none for one that was never tried."""
        return self.purchases.get(purchase, PurchaseAttempts())

    @property
    def unfinished(self) -> list[Attempt]:
        """The open attempts whose result is still needed; all others are to be cancelled."""
        return [
            attempt
            for purchase in self.purchases.values()
            for attempt in purchase.open.values()
            if attempt.node not in self.done
            and attempt.item not in self.items.get(attempt.node, ())
            and attempt.item not in self.skipped_items.get(attempt.node, ())
        ]

    def rest_of(self, planned: PlannedNode) -> int:
        """Return the most, in units, that the unfinished items of a planned node can cost."""
        ended = planned.name in self.done or planned.name in self.skipped
        if planned.at_most is None or ended:
            return 0
        left = planned.items - self.items_ended(planned.name)
        return planned.at_most.units * max(left, 0) // planned.items

    def items_ended(self, node: str) -> int:
        """Return how many items of a mapped node are done or skipped."""
        return len(self.items.get(node, ())) + len(self.skipped_items.get(node, ()))

    @property
    def rest(self) -> int:
        """The most, in units, that everything unfinished in the plan can cost."""
        return sum(map(self.rest_of, self.planned.nodes))

    @property
    def settled(self) -> int:
        """How many nodes are done or skipped."""
        return len(self.done) + len(self.skipped)

    def receive(self, *receipts: Receipt | None) -> None:
        """Add receipts; their attempts are no longer open."""
        for receipt in receipts:
            if receipt is None:
                continue
            self.receipts.append(receipt)
            purchase = self.purchases.get(receipt.attempt.purchase)
            if purchase:
                purchase.open.pop(receipt.attempt.id, None)


@cache
def _codec() -> TypeAdapter[RunState]:
    return TypeAdapter(RunState)


# -- what each event changes ---------------------------------------------------------------------

Change = Callable[[Any, RunState], None]

_CHANGES: dict[type[Event], Change] = {}


def _changes(event: type[Event]) -> Callable[[Change], Change]:
    """Register a function as what one kind of event changes."""

    def register(change: Change) -> Change:
        _CHANGES[event] = change
        return change

    return register


@_changes(e.Earlier)
def _apply_earlier(event: e.Earlier, state: RunState) -> None:
    # It stands first, for all events before a snapshot: the state after them replaces this one.
    state.__dict__.update(RunState.read(state.run, event.state).__dict__)


@_changes(e.RunStarted)
def _apply_run_started(event: e.RunStarted, state: RunState) -> None:
    state.follow(event.plan)
    state.code.update(event.code)


@_changes(e.RunResumed)
def _apply_run_resumed(event: e.RunResumed, state: RunState) -> None:
    """Go on, under a new plan if there is one; nothing of the last pause or failure stays."""
    state.code.update(event.code)
    if event.plan:
        state.follow(event.plan)
    state.outcome = "running"
    state.why = ""
    state.uncertain = False
    state.command = ""
    state.hint = ""
    state.mend = ""
    state.failures.clear()


@_changes(e.AttemptOpened)
def _apply_attempt_opened(event: e.AttemptOpened, state: RunState) -> None:
    purchase = state.purchases.setdefault(event.attempt.purchase, PurchaseAttempts())
    purchase.attempts.append(event.attempt)
    purchase.open[event.attempt.id] = event.attempt


@_changes(e.AttemptClosed)
def _apply_attempt_closed(event: e.AttemptClosed, state: RunState) -> None:
    purchase = state.purchases[event.purchase]
    purchase.open.pop(event.attempt, None)
    if event.outcome == "uncertain" and not event.answered:
        purchase.uncertain += 1
        purchase.why = event.reason
    state.receive(event.receipt)


@_changes(e.ItemDone)
def _apply_item_done(event: e.ItemDone, state: RunState) -> None:
    state.items.setdefault(event.node, {})[event.item] = event.outputs
    state.receive(event.receipt, *event.others)


@_changes(e.ItemSkipped)
def _apply_item_skipped(event: e.ItemSkipped, state: RunState) -> None:
    state.skipped_items.setdefault(event.node, {})[event.item] = event.why


@_changes(e.NodeDone)
def _apply_node_done(event: e.NodeDone, state: RunState) -> None:
    state.done[event.node] = event.outputs
    state.receive(event.receipt, *event.others)


@_changes(e.NodesEnded)
def _apply_nodes_ended(event: e.NodesEnded, state: RunState) -> None:
    for done in event.done:
        state.done[done.node] = done.outputs
    for skipped in event.skipped:
        state.apply(skipped)


@_changes(e.NodeSkipped)
def _apply_node_skipped(event: e.NodeSkipped, state: RunState) -> None:
    state.skipped[event.node] = event.why


@_changes(e.Approved)
def _apply_approved(event: e.Approved, state: RunState) -> None:
    state.approved[event.node] = event.amount


@_changes(e.BudgetRaised)
def _apply_budget_raised(event: e.BudgetRaised, state: RunState) -> None:
    state.plan = state.planned.model_copy(update={"budget": event.budget})


@_changes(e.NodeFailed)
def _apply_node_failed(event: e.NodeFailed, state: RunState) -> None:
    state.failures[event.node] = event.reason


@_changes(e.RunPaused)
def _apply_run_paused(event: e.RunPaused, state: RunState) -> None:
    state.outcome = "paused"
    state.why = event.why
    state.uncertain = event.uncertain
    state.command = event.command
    state.hint = event.hint
    state.mend = event.mend


@_changes(e.RunFinished)
def _apply_run_finished(event: e.RunFinished, state: RunState) -> None:
    state.outcome = event.outcome
