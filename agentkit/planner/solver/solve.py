"""The one way in: a problem and a goal, and what is best."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from agentkit.planner.solver import baselines, capacity
from agentkit.planner.solver.exact import best_choice
from agentkit.planner.solver.lagrange import Goal, Heat
from agentkit.planner.solver.problem import Choice, Floats, Ints, Problem
from agentkit.planner.solver.prune import pruned
from agentkit.planner.solver.search import SHORT, Best, Care, Old, SearchResult, search
from agentkit.planner.solver.windows import Windows

Effort: TypeAlias = Literal["quick", "normal", "high"]

EXACT = 30
"""The most nodes for which the best choice is proven by default."""

EXACT_SECONDS = 20.0
HIGH_SECONDS = 60.0

FEASIBLE = 300
"""The most nodes for which integer programming looks for a choice that is in time at all."""

FAR = 0.5
"""The gap above which a choice near an old one is not trusted, and looked for afresh."""

QUICK = Care((Heat(1.0, 0.05, 8),))
AGAIN = Care((Heat(0.5, 0.1, 4, since=8),), candidates=0, cooling=SHORT)
SMALL = Care((Heat(3.0, 0.2, 16, passes=1), Heat(0.6, 0.03, 16, passes=1)), 5, merging=True)
MIDDLE = Care((Heat(3.0, 0.2, 40),))
LARGE = Care((Heat(3.0, 0.3, 40),))


@dataclass(frozen=True, eq=False)
class Solution:
    """A choice, what it costs and lasts, and how far from the best it can be.

    `bound`: no choice in time has less cost plus priced makespan.  `price`: what a second later
    would save, about; `prices` that for each node.  `earliest`: no choice ends before.  `rivals`:
    what the choices of simple routers cost, None where they are late.  `in_time`: the deadline is
    kept; if it is not, the choice is the fastest that was found.
    """

    choice: Choice
    cost: float
    makespan: float
    bound: float
    price: float
    prices: Floats
    earliest: float
    in_time: bool
    rivals: dict[str, float | None] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        """The share by which the choice's cost can be above the least."""
        return max(0.0, self.cost - self.bound) / self.bound if self.bound > 0 else 0.0


def solve(
    problem: Problem, goal: Goal, *, effort: Effort = "normal", old: Old | None = None
) -> Solution:
    """Return the best choice for a goal; with an `old` one it is looked for near that first.

    Up to 30 nodes it is proven.  Above, it is no dearer than any of the rivals that is in time.
    `effort="high"` has HiGHS go on from there for up to a minute; "quick" is for a first look.
    """
    arranged, order = problem.arranged()
    way = _on_lanes if arranged.lanes.any() else _free
    if old is None:
        solution = way(arranged, goal, effort, None)
    else:
        solution = way(arranged, goal, effort, replace(old, choice=old.choice[order]))
        if not solution.in_time or solution.gap > FAR:
            fresh = way(arranged, goal, effort, None)
            solution = min(solution, fresh, key=lambda one: (not one.in_time, one.cost))
    choice = np.empty_like(solution.choice)
    prices = np.empty_like(solution.prices)
    choice[order], prices[order] = solution.choice, solution.prices
    return replace(solution, choice=choice, prices=prices)


# -- without lanes -------------------------------------------------------------------------------


def _free(problem: Problem, goal: Goal, effort: Effort, old: Old | None) -> Solution:
    """Solve a problem without lanes: prune it, start from simple choices, and search from there."""
    small, kept = pruned(problem)
    windows = Windows.of(small)
    if small.costs.shape[1] == 1:
        return _only(problem, goal, kept[:, 0], windows.earliest)
    known = _rivals(problem, goal) if effort != "quick" and old is None else {}
    first = baselines.fastest(small)
    if small.makespan(first) > goal.deadline:
        first = _in_time(small, goal, first, windows.earliest)
    others = (known.get("slack"), known.get("single"))
    starts = [
        first,
        *(_onto(problem, small, kept, choice) for choice in others if choice is not None),
    ]
    best = Best(problem, goal)
    if old is not None:
        best.take(old.choice)
        old = replace(old, choice=_onto(problem, small, kept, old.choice))
    for choice in known.values():
        if choice is not None:
            best.take(choice)
    found = _find(windows.within(small, goal.deadline), goal, starts, effort, old)
    if found.choice is not None:
        best.take(kept[problem.rows, found.choice])
    choice = kept[problem.rows, first] if best.choice is None else best.choice
    makespan = problem.makespan(choice)
    return Solution(
        choice=choice,
        cost=problem.cost(choice),
        makespan=makespan,
        bound=min(found.bound, best.value),
        price=found.price,
        prices=found.prices,
        earliest=windows.earliest,
        in_time=makespan <= goal.deadline,
        rivals={
            name: None if x is None or problem.makespan(x) > goal.deadline else problem.cost(x)
            for name, x in known.items()
        },
    )


def _only(problem: Problem, goal: Goal, choice: Choice, earliest: float) -> Solution:
    """Return the solution where one offer of each node is as good as all others in every way."""
    cost, makespan = problem.cost(choice), problem.makespan(choice)
    return Solution(
        choice=choice,
        cost=cost,
        makespan=makespan,
        bound=cost + goal.rate * makespan,
        price=goal.rate,
        prices=np.zeros(problem.nodes),
        earliest=earliest,
        in_time=makespan <= goal.deadline,
    )


def _rivals(problem: Problem, goal: Goal) -> dict[str, Choice | None]:
    return {
        "slack": baselines.slack_router(problem, goal.deadline),
        "single": baselines.single(problem, goal.deadline),
        "fastest": baselines.fastest(problem),
    }


def _onto(problem: Problem, small: Problem, kept: Ints, choice: Choice) -> Choice:
    """Return a choice among the offers that were kept: the same ones, or the cheapest as fast."""
    same = small.offered & (kept == choice[:, None])
    slower = small.times > problem.times[problem.rows, choice][:, None]
    as_fast = np.where(slower, np.inf, small.costs).argmin(1)
    onto: Choice = np.where(same.any(1), same.argmax(1), as_fast)
    return onto


def _find(
    problem: Problem, goal: Goal, starts: list[Choice], effort: Effort, old: Old | None
) -> SearchResult:
    """Search for a choice, exactly where the problem is small enough."""
    if problem.nodes <= EXACT:
        found = search(problem, goal, starts, QUICK, old)
        return _proven(problem, goal, found, EXACT_SECONDS)
    care = SMALL if problem.nodes <= 300 else MIDDLE if problem.nodes <= 3000 else LARGE
    if effort == "quick":
        care = QUICK
    if old is not None:
        care, starts = AGAIN, []
    if problem.nodes > 3000:
        starts = starts[:1]
    found = search(problem, goal, starts, care, old)
    return _proven(problem, goal, found, HIGH_SECONDS) if effort == "high" else found


def _proven(problem: Problem, goal: Goal, found: SearchResult, seconds: float) -> SearchResult:
    """Have HiGHS go on from what was found."""
    best = Best(problem, goal)
    if found.choice is not None:
        best.take(found.choice)
    if best.value <= found.bound + abs(found.bound) * 1e-8:
        return found
    small = problem.nodes <= EXACT
    exact = best_choice(problem, goal, seconds=seconds, start=best.choice, proving=small)
    if exact.choice is not None and not best.take(exact.choice):
        shy = replace(goal, deadline=goal.deadline * (1 - 1e-6))
        late = problem.makespan(exact.choice) > goal.deadline
        again = best_choice(problem, shy, seconds=seconds, start=best.choice) if late else exact
        if again.choice is not None:
            best.take(again.choice)
    return replace(found, choice=best.choice, bound=max(found.bound, exact.bound))


def _in_time(problem: Problem, goal: Goal, fastest: Choice, earliest: float) -> Choice:
    """Look for a choice that keeps a deadline which the simple fastest one does not."""
    if earliest > goal.deadline or problem.nodes > FEASIBLE:
        return fastest
    soonest = best_choice(problem, Goal(rate=1.0), seconds=EXACT_SECONDS, start=fastest, free=True)
    return fastest if soonest.choice is None else soonest.choice


# -- with lanes ----------------------------------------------------------------------------------


def _on_lanes(problem: Problem, goal: Goal, effort: Effort, old: Old | None) -> Solution:
    """Solve without lanes; where that is late on them, look on."""
    timeless = not (math.isfinite(goal.deadline) or goal.rate)
    unlimited = replace(problem, lanes=problem.lanes * 0)
    first = _free(unlimited if timeless else problem, goal, effort, old)
    makespan = _on(problem, first.choice)
    if first.in_time and makespan <= goal.deadline:
        return replace(first, makespan=makespan)
    quick = [capacity.earliest(problem), baselines.fastest(problem), first.choice]
    found = min(quick, key=lambda choice: _on(problem, choice))
    if first.in_time:
        priced = capacity.priced(
            problem, lambda other: _free(other, goal, "quick", None).choice, goal.deadline
        )
        if priced is not None:
            found = priced
    if _on(problem, found) <= goal.deadline:
        found = capacity.cheaper(problem, found, goal.deadline)
    makespan = _on(problem, found)
    return replace(
        first,
        choice=found,
        cost=problem.cost(found),
        makespan=makespan,
        in_time=makespan <= goal.deadline,
    )


def _on(problem: Problem, choice: Choice) -> float:
    """Return when a choice is done on the sites' lanes."""
    return float(capacity.scheduled(problem, choice)[1].max())
