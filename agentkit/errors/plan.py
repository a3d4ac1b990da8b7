"""Why there is no plan; nothing has been spent."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentkit.errors.base import AgentKitError


class PlanError(AgentKitError):
    """No plan could be made; nothing was spent."""

    exit_code = 3


class NoOffer(PlanError):
    """No provider can do a node.

    `rejections` holds (offer label, reason) for everything that was looked at.
    """

    default_hint = "run `agentkit providers` to see what each provider offers"

    def __init__(self, node: str, rejections: Sequence[tuple[str, str]] = ()) -> None:
        self.node, self.rejections = node, tuple(rejections)
        why = "; ".join(f"{who}: {reason}" for who, reason in self.rejections[:6])
        super().__init__(f"no provider can do node {node!r}" + (f" ({why})" if why else ""))


class OverBudget(PlanError):
    """A limit on spending would be exceeded.

    `limit` names which one: `budget`, `per_task`, `per_run`, `per_day`, `total` or a provider's.
    `already` is the part of `needed` that was spent or set aside before, where that counts.
    """

    def __init__(
        self,
        limit: str,
        needed: object,
        allowed: object,
        *,
        already: object = None,
        hint: str = "",
    ) -> None:
        self.limit = limit
        self.needed = needed
        self.allowed = allowed
        self.already = already
        before = f" ({already} of it spent or set aside before)" if already else ""
        wait = ", wait for the next day (UTC)" if limit == "per_day" and already else ""
        super().__init__(
            f"it could come to {needed} in all{before}, above the limit {limit} of {allowed}",
            hint=hint or f"raise {limit} to at least {needed}{wait}, or drop nodes from the graph",
        )


class PastDeadline(PlanError):
    """The deadline cannot be met.

    `earliest` is the shortest time, in seconds, in which the graph could finish.
    """

    def __init__(self, earliest: float, allowed: float, path: Sequence[str]) -> None:
        self.earliest = earliest
        self.allowed = allowed
        self.path = tuple(path)
        super().__init__(
            f"the graph needs at least {earliest:.1f} s and the deadline is in {allowed:.1f} s"
            f" (longest path: {' -> '.join(self.path)})",
            hint=f"set deadline to {math.ceil(earliest)} s or more",
        )


class PlanExpired(PlanError):
    """The prices in this plan no longer hold."""

    default_hint = "make it again with `agentkit plan GRAPH --out plan.json`"
