"""Events of a run, one line each."""

from __future__ import annotations

from agentkit.journal import events as e
from agentkit.market.seams import Event


def line_of(event: Event) -> str:
    """Return what an event means to a person, "" for what says nothing new."""
    match event:
        case e.AttemptOpened():
            a = event.attempt
            again = f", try {a.n + 1}" if a.n else ""
            return f"{_where(a.node, a.item)}: asked {_who(a.provider, a.provider_node)}{again}"
        case e.AttemptClosed():
            return f"{_where(event.node, event.item)}: {event.outcome}: {event.reason}"
        case e.ItemDone() | e.NodeDone() if event.receipt:
            receipt = event.receipt
            item = event.item if isinstance(event, e.ItemDone) else None
            return f"{_where(event.node, item)}: done, {receipt.standing} {receipt.amount}"
        case e.NodeDone():
            return f"{event.node}: done"
        case e.ItemSkipped():
            return f"{_where(event.node, event.item)}: skipped: {event.why}"
        case e.NodeSkipped():
            return f"{event.node}: skipped: {event.why}"
        case e.NodeFailed():
            return f"{event.node}: failed: {event.reason}"
        case _:
            return _line_of_run(event)


def _line_of_run(event: Event) -> str:
    """Return what an event of the whole run means to a person, "" for nothing new."""
    match event:
        case e.RunStarted():
            return f"started: at most {event.plan.at_most} is set aside"
        case e.RunResumed():
            return "resumed from the journal"
        case e.Approved():
            return f"{event.node}: up to {event.amount} agreed to"
        case e.BudgetRaised():
            return f"the budget is now {event.budget}"
        case e.RunPaused():
            return f"paused: {event.why}"
        case e.RunFinished():
            return event.outcome
        case _:
            return ""


def _where(node: str, item: int | None) -> str:
    return node if item is None else f"{node}[{item}]"


def _who(provider: str, node: str) -> str:
    return f"{provider}/{node}" if node else provider
