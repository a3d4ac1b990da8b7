"""The best choice for large graphs: priced time, then descents that stay in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from agentkit.planner.solver.descent import EPSILON, Descent
from agentkit.planner.solver.lagrange import Dual, Goal, Heat
from agentkit.planner.solver.problem import Choice, Floats, Problem

COOLING = (3.0, 2.0, 1.0, 0.5, 0.2, 0.0, 0.0)
"""The prices of time that a descent goes through, as multiples of the bound's: first saving time
for those who need it most, then spending what is left."""

FINES = (2.0, 6.0, 20.0, 100.0, 1e3, 1e4)
"""What lateness costs while a choice is repaired, as multiples of the price of a second."""

CANDIDATES = 3
POLISH = 6


@dataclass
class Best:
    """The best choice so far, by cost plus priced makespan, of those in time."""

    problem: Problem
    goal: Goal
    choice: Choice | None = None
    value: float = math.inf

    def take(self, choice: Choice) -> bool:
        """Keep a choice that is in time and better; return whether it was."""
        makespan = self.problem.makespan(choice)
        if makespan > self.goal.deadline:
            return False
        value = self.problem.cost(choice) + self.goal.rate * makespan
        if value >= self.value * (1 - 1e-12):
            return False
        self.choice, self.value = choice, value
        return True


@dataclass(frozen=True)
class Found:
    """What a search came to: `price` is what a second is worth, `prices` that by node."""

    choice: Choice | None
    bound: float
    price: float
    prices: Floats = field(repr=False)


def search(problem: Problem, goal: Goal, starts: Sequence[Choice], heats: Sequence[Heat]) -> Found:
    """Return the best choice found for an arranged problem, with a certified bound.

    `starts` are choices to improve; the result is no worse than any of them that is in time.
    """
    best = Best(problem, goal)
    for start in starts:
        best.take(start)
    dual = Dual(problem, goal)
    cheap = dual.choices[0]
    best.take(cheap)
    if best.choice is not None and best.value <= dual.bound + abs(dual.bound) * 1e-8:
        return Found(best.choice, dual.bound, goal.rate, np.zeros(problem.nodes))
    span = goal.deadline if math.isfinite(goal.deadline) else problem.horizon
    spread = problem.cost(starts[0]) - problem.cost(cheap) if starts else 0.0
    guess = max(goal.rate, 0.2 * abs(spread) / span, 1e-12)
    for heat in heats:
        dual.play(heat, dual.price or guess)
    prices = dual.price * dual.flow
    for choice in _promising(dual, best) + list(starts):
        descend(best, choice, dual.price, prices)
    polish(best)
    return Found(best.choice, dual.bound, dual.price, prices)


def _promising(dual: Dual, best: Best) -> list[Choice]:
    """Return the choices that would be cheapest if lateness could be bought off."""
    problem, goal = best.problem, best.goal

    def value(choice: Choice) -> float:
        makespan = problem.makespan(choice)
        late = max(0.0, makespan - goal.deadline)
        return problem.cost(choice) + goal.rate * makespan + 2 * dual.price * late

    return sorted(dual.choices, key=value)[:CANDIDATES]


def descend(best: Best, choice: Choice, price: float, prices: Floats) -> None:
    """Bring a choice in time if it is late, and make it cheaper; `best` keeps what came of it."""
    problem = best.problem
    deadline = best.goal.deadline
    if not math.isfinite(deadline):
        deadline = problem.makespan(choice) if best.goal.rate else problem.horizon
    descent = Descent(problem, deadline)
    for fine in FINES:
        if problem.makespan(choice) <= deadline:
            break
        choice = descent.forward(choice, prices, max(price, 1e-12) * fine)
    if problem.makespan(choice) > deadline * (1 + 1e-12):
        return
    best.take(choice)
    for share in COOLING:
        paid = prices * share + EPSILON
        choice = descent.backward(descent.forward(choice, paid), paid)
        best.take(choice)


def polish(best: Best) -> None:
    """Sweep over the best choice until that gains nothing."""
    for _ in range(POLISH):
        if best.choice is None:
            return
        deadline = best.goal.deadline
        if not math.isfinite(deadline):
            makespan = best.problem.makespan(best.choice)
            deadline = makespan if best.goal.rate else best.problem.horizon
        descent = Descent(best.problem, deadline)
        if not best.take(descent.backward(descent.forward(best.choice))):
            return
