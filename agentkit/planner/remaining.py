"""What a run has left to do, to be planned anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentkit.journal.run_state import RunState
from agentkit.market.plan import Plan


@dataclass(frozen=True)
class Rest:
    """The plan a run went by, the nodes that are at their end, how many items are done of others.

    `spent`: the base units of its budget that are gone.
    """

    plan: Plan
    done: frozenset[str]
    items: Mapping[str, int] = field(default_factory=dict)
    spent: int = 0


def rest_of(state: RunState) -> Rest:
    """Return what is left of a run; raises RunNotFound for one with no events."""
    plan = state.planned
    done = frozenset(state.done) | frozenset(state.skipped)
    begun = state.items.keys() | state.skipped_items.keys()
    items = {name: state.items_ended(name) for name in begun if name not in done}
    spent = sum(receipt.amount.units for receipt in state.receipts)
    return Rest(plan, done, items, spent)
