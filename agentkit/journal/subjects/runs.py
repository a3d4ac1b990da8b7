"""Runs: what happens in a run's own stream, and what is known of a run without reading it.

Most events of a run have no fold: what a run has done is read from its stream
(`journal.run_state`), so a node that costs nothing writes one row.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from agentkit.journal.folding import Records, folds, update
from agentkit.journal.produced import Produced
from agentkit.market.attempt import Attempt, Evidence
from agentkit.market.plan import Plan
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Event, Record
from agentkit.money import Money

# -- events: a run as a whole --------------------------------------------------------------------


class RunStarted(Event):
    """A run of a plan began.

    `code` are the sha256 of the files with its functions: a resume may load these again.
    """

    stored_name: ClassVar[str] = "RunStarted"
    plan: Plan
    code: tuple[str, ...] = ()


class Earlier(Event):
    """Stands for the events of a run that are not in this state file.

    `state` is the JSON of the run's state after them.  A run that was restored from a snapshot is
    read with this event first; it is never written, so it is not in `events.EVENTS`.
    """

    stored_name: ClassVar[str] = "Earlier"
    state: str


class RunResumed(Event):
    """A process went on with the run, under a new plan if one is given.

    `code` are the sha256 of files that may be loaded from now on, besides those of the start.
    """

    stored_name: ClassVar[str] = "RunResumed"
    plan: Plan | None = None
    code: tuple[str, ...] = ()


class Approved(Event):
    """Somebody agreed that a node may cost up to `amount`; `by` says how they were asked."""

    stored_name: ClassVar[str] = "Approved"
    node: str
    amount: Money
    by: str


class BudgetRaised(Event):
    """The budget of the whole run is `budget` from now on."""

    stored_name: ClassVar[str] = "BudgetRaised"
    budget: Money


class RunPaused(Event):
    """The run stopped and can be resumed.

    `command` is what resumes it, where a plain `resume` is not enough; `hint` what has to be done
    first, if anything.  `mend` names the node whose function raised, so that a person mends it.
    """

    stored_name: ClassVar[str] = "RunPaused"
    why: str
    uncertain: bool = False
    command: str = ""
    hint: str = ""
    mend: str = ""


class RunFinished(Event):
    """The run ended for good."""

    stored_name: ClassVar[str] = "RunFinished"
    outcome: Literal["done", "failed", "cancelled"]


class CancelAsked(Event):
    """A process asked the process that executes a run to cancel it; in the wallet's stream."""

    stored_name: ClassVar[str] = "CancelAsked"
    run: str


# -- events: nodes and attempts ------------------------------------------------------------------


class AttemptOpened(Event):
    """The next request to a provider carries this attempt's key."""

    stored_name: ClassVar[str] = "AttemptOpened"
    attempt: Attempt


class AttemptClosed(Event):
    """An attempt ended without a result that was paid for.

    `outcome` is `unpaid` if it surely costs nothing, `uncertain` if that cannot be found out.
    `refused` says that a result came and failed verification: `result` is then its digest and
    `evidence` what the provider signed.  `answered` says that an answer came and cannot be used, so
    that the purchase may go to another provider although this attempt counts as spent.
    """

    stored_name: ClassVar[str] = "AttemptClosed"
    attempt: str
    purchase: str
    node: str
    item: int | None = None
    outcome: Literal["unpaid", "uncertain"]
    reason: str
    receipt: Receipt | None = None
    provider: str = ""
    refused: bool = False
    result: str = ""
    evidence: Evidence = Evidence()
    answered: bool = False


class ItemDone(Event):
    """One item of a mapped node was delivered, verified and paid; fields as in `NodeDone`."""

    stored_name: ClassVar[str] = "ItemDone"
    node: str
    item: int
    outputs: tuple[Produced, ...]
    receipt: Receipt | None = None
    others: tuple[Receipt, ...] = ()
    task: str = ""


class ItemSkipped(Event):
    """One item of a mapped node failed for good and is left out (`on_error="skip"`)."""

    stored_name: ClassVar[str] = "ItemSkipped"
    node: str
    item: int
    why: str


class NodeDone(Event):
    """A node has its outputs.

    `others` are the receipts of further replicas that agreed.  `task` is the digest under which
    later runs may use the outputs again, "" if they may not.
    """

    stored_name: ClassVar[str] = "NodeDone"
    node: str
    outputs: tuple[Produced, ...]
    receipt: Receipt | None = None
    others: tuple[Receipt, ...] = ()
    task: str = ""


class NodeSkipped(Event):
    """A node is left out: its condition did not hold, or a node that it reads was skipped."""

    stored_name: ClassVar[str] = "NodeSkipped"
    node: str
    why: str


class NodesEnded(Event):
    """Nodes on this machine that ended in the same moment, in one row.

    Readers get the events inside, see `Event.parts`.
    """

    stored_name: ClassVar[str] = "NodesEnded"
    done: tuple[NodeDone, ...] = ()
    skipped: tuple[NodeSkipped, ...] = ()

    def parts(self) -> tuple[Event, ...]:
        return (*self.done, *self.skipped)


class NodeFailed(Event):
    """A node failed for good; `error` is the name of the exception's class."""

    stored_name: ClassVar[str] = "NodeFailed"
    node: str
    error: str
    reason: str


# -- records -------------------------------------------------------------------------------------


class Run(Record):
    """What is known of a run without reading its stream."""

    stored_name: ClassVar[str] = "Run"
    run: str
    graph: str
    started: float
    state: Literal["running", "paused", "done", "failed", "cancelled"] = "running"
    why: str = ""
    uncertain: bool = False

    @property
    def key(self) -> str:
        return self.run


class Reputation(Record):
    """How many attempts a provider node delivered to this agent, and how many were refused."""

    stored_name: ClassVar[str] = "Reputation"
    provider: str
    delivered: int = 0
    refused: int = 0

    @property
    def key(self) -> str:
        return self.provider

    @property
    def share(self) -> float:
        """The share of attempts that were delivered as asked; 1 while nothing was refused."""
        return (self.delivered + 1) / (self.delivered + 1 + self.refused)


class Reusable(Record):
    """The outputs of a task; a node with `cache=True` takes them and buys nothing."""

    stored_name: ClassVar[str] = "Reusable"
    task: str
    outputs: tuple[Produced, ...]

    @property
    def key(self) -> str:
        return self.task


class CancelRequest(Record):
    """A run that some process asked to be cancelled."""

    stored_name: ClassVar[str] = "CancelRequest"
    run: str

    @property
    def key(self) -> str:
        return self.run


# -- folds ---------------------------------------------------------------------------------------


@folds(RunStarted)
def _fold_run_started(event: RunStarted, stream: str, at: float, records: Records) -> None:
    records.put(Run(run=stream, graph=event.plan.graph.name, started=at))


@folds(RunResumed)
def _fold_run_resumed(event: RunResumed, stream: str, at: float, records: Records) -> None:
    update(records, Run, stream, state="running", why="", uncertain=False)


@folds(RunPaused)
def _fold_run_paused(event: RunPaused, stream: str, at: float, records: Records) -> None:
    update(records, Run, stream, state="paused", why=event.why, uncertain=event.uncertain)


@folds(RunFinished)
def _fold_run_finished(event: RunFinished, stream: str, at: float, records: Records) -> None:
    update(records, Run, stream, state=event.outcome)


@folds(CancelAsked)
def _fold_cancel_asked(event: CancelAsked, stream: str, at: float, records: Records) -> None:
    records.put(CancelRequest(run=event.run))


@folds(AttemptClosed)
def _fold_attempt_closed(event: AttemptClosed, stream: str, at: float, records: Records) -> None:
    if event.refused:
        reputation = _reputation(records, event.provider)
        records.put(reputation.model_copy(update={"refused": reputation.refused + 1}))


@folds(NodeDone)
@folds(ItemDone)
def _fold_delivery(event: NodeDone | ItemDone, stream: str, at: float, records: Records) -> None:
    """Count a bought result for its providers, and keep it for later runs if it may be reused."""
    if event.receipt is None:
        return  # made on this machine

    for receipt in (event.receipt, *event.others):
        reputation = _reputation(records, receipt.attempt.label)
        records.put(reputation.model_copy(update={"delivered": reputation.delivered + 1}))
    if event.task:
        records.put(Reusable(task=event.task, outputs=event.outputs))


def _reputation(records: Records, provider: str) -> Reputation:
    return records.get(Reputation, provider) or Reputation(provider=provider)
