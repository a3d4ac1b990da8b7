"""What simple routers would do with an arranged problem.

They are fair rivals, and as starts they see to it that no plan is dearer than theirs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from agentkit.planner.solver.descent import Descent
from agentkit.planner.solver.problem import Choice, Problem

STEPS = 40
MOST = 200.0


def fastest(problem: Problem) -> Choice:
    """Return the choice that ends each node as early as its parents' choices allow.

    Without egress times none is faster.
    """
    choice: Choice = Descent(problem, np.array([math.inf])).earliest()[0]
    return choice


def slack_router(
    problem: Problem, deadline: float, allowed: NDArray[np.bool_] | None = None
) -> Choice | None:
    """Return each node's cheapest offer within k times its fastest, k as large as is in time.

    None when it is late even with the fastest offers, or when a node has none `allowed`.
    """
    offered = problem.offered if allowed is None else problem.offered & allowed
    if not offered.any(1).all():
        return None
    times = np.where(offered, problem.times, np.inf)
    costs = np.where(offered, problem.costs, np.inf)
    least = times.min(1)
    low = 1.0
    high = MOST
    price = math.inf
    best: Choice | None = None
    last = np.full(problem.nodes, -1)
    cost = math.inf
    makespan = math.inf
    for _ in range(STEPS):
        factor = math.sqrt(low * high)
        choice = np.where(times <= (least * factor)[:, None], costs, np.inf).argmin(1)
        if not np.array_equal(choice, last):
            cost, makespan = map(float, problem.totals(choice))
            last = choice
        if makespan > deadline:
            high = factor
            continue
        low = factor
        if cost < price:
            best, price = choice, cost
    if best is None:
        quickest: Choice = times.argmin(1)
        best = quickest if problem.makespan(quickest) <= deadline else None
    return best


def single(problem: Problem, deadline: float) -> Choice | None:
    """Return the cheapest slack router inside one site; None when no site can do it in time."""
    found = [
        slack_router(problem, deadline, problem.sites == site) for site in range(problem.site_count)
    ]
    return min((x for x in found if x is not None), key=problem.cost, default=None)
