"""The best choice for large graphs: priced time, then descents that stay in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from agentkit.planner.solver.descent import EPSILON, Descent
from agentkit.planner.solver.exact import best_choice
from agentkit.planner.solver.lagrange import Dual, Goal, Heat
from agentkit.planner.solver.problem import Choice, Floats, Problem

COOLING = (3.0, 2.0, 1.0, 0.5, 0.2, 0.0, 0.0)
"""The prices of time that a descent goes through, as multiples of the bound's: first saving time
for those who need it most, then spending what is left."""

SHORT = (1.0, 0.3, 0.0, 0.0)
"""The same for a choice that was good before."""

FINES = (2.0, 6.0, 20.0, 100.0, 1e3, 1e4)
"""What lateness costs while a choice is repaired, as multiples of the price of a second."""

MERGE_SECONDS = 0.045
POLISH = 6


@dataclass
class Best:
    """The best choice so far, by cost plus priced makespan, of those in time."""

    problem: Problem
    goal: Goal
    choice: Choice | None = None
    value: float = math.inf

    def take(self, choices: Choice) -> bool:
        """Keep the best of some choices if it is in time and better; return whether it was."""
        choices = np.atleast_2d(choices)
        costs, makespans = self.problem.totals(choices)
        values = costs + self.goal.rate * makespans
        values[makespans > self.goal.deadline] = np.inf
        first = int(values.argmin())
        if not values[first] < self.value * (1 - 1e-12):
            return False
        self.choice, self.value = choices[first], float(values[first])
        return True

    def deadlines(self, choices: Choice) -> Floats:
        """Return what each choice has to keep while it is made cheaper: its own end at the worst.

        Where time has a price and no limit, a choice keeps the time that it was given.
        """
        if math.isfinite(self.goal.deadline):
            return np.full(len(choices), self.goal.deadline)
        if self.goal.rate:
            return self.problem.totals(choices)[1]
        return np.full(len(choices), self.problem.horizon)


@dataclass(frozen=True)
class SearchResult:
    """What a search came to: `price` is what a second is worth, `prices` that by node."""

    choice: Choice | None
    bound: float
    price: float
    prices: Floats = field(repr=False)


@dataclass(frozen=True)
class Care:
    """How much is done: the plays, how many of their choices are improved, whether those merge.

    `cooling`: the prices of time that each of them goes through.
    """

    heats: tuple[Heat, ...]
    candidates: int = 3
    merging: bool = False
    cooling: tuple[float, ...] = COOLING


@dataclass(frozen=True)
class Old:
    """A choice that was good before, and what a second was worth then."""

    choice: Choice
    price: float


def search(
    problem: Problem,
    goal: Goal,
    starts: Sequence[Choice],
    care: Care,
    old: Old | None = None,
) -> SearchResult:
    """Return the best choice found for an arranged problem, with a certified bound.

    `starts` are choices to improve, and `old` too; the result is no worse than any of them that
    is in time.
    """
    starts = [*starts, *([old.choice] if old else [])]
    best = Best(problem, goal)
    for start in starts:
        best.take(start)
    dual = Dual(problem, goal)
    cheap = dual.choices[0]
    best.take(cheap)
    if best.choice is not None and best.value <= dual.bound + abs(dual.bound) * 1e-8:
        return SearchResult(best.choice, dual.bound, goal.rate, np.zeros(problem.nodes))
    span = goal.deadline if math.isfinite(goal.deadline) else problem.horizon
    spread = problem.cost(starts[0]) - problem.cost(cheap) if starts else 0.0
    guess = max(goal.rate, 0.2 * abs(spread) / span, 1e-12)
    for heat in care.heats:
        price = dual.price or (old.price if old else 0.0) or guess
        dual.play(heat, price, old.choice if old else None)
    promising = _promising(dual, best)[: care.candidates]
    choices = np.array([*promising, *starts])
    prices = dual.price * np.repeat(dual.flows, len(choices), axis=0)
    choices = np.tile(choices, (len(dual.flows), 1))
    ends = descend(best, choices, dual.price, prices, care.cooling)
    polish(best)
    if care.merging:
        merge(best, ends, promising)
    return SearchResult(best.choice, dual.bound, dual.price, dual.price * dual.flows[-1])


def _promising(dual: Dual, best: Best) -> list[Choice]:
    """Return the choices that would be cheapest if lateness could be bought off."""
    choices = np.array(dual.choices)
    costs, makespans = best.problem.totals(choices)
    late = np.maximum(0.0, makespans - best.goal.deadline)
    values = costs + best.goal.rate * makespans + 2 * dual.price * late
    _, first = np.unique(values, return_index=True)
    return list(choices[first])


def descend(
    best: Best, choices: Choice, price: float, prices: Floats, cooling: Sequence[float] = COOLING
) -> Choice:
    """Bring choices in time that are late, make them cheaper, and return them.

    `best` keeps the best that comes by.
    """
    problem = best.problem
    deadlines = best.deadlines(choices)
    descent = Descent(problem, deadlines)
    for fine in FINES:
        late = np.flatnonzero(problem.totals(choices)[1] > deadlines)
        if not len(late):
            break
        hard = max(price, 1e-12) * fine
        choices[late] = descent.of(late).forward(choices[late], prices[late], hard)
    fit = np.flatnonzero(problem.totals(choices)[1] <= deadlines * (1 + 1e-12))
    choices = choices[fit]
    prices = prices[fit]
    descent = descent.of(fit)
    for share in cooling if len(fit) else ():
        best.take(choices)
        paid = prices * share + EPSILON
        choices = descent.backward(descent.forward(choices, paid), paid)
    if len(fit):
        best.take(choices)
    return choices


def merge(best: Best, choices: Choice, late: Sequence[Choice]) -> None:
    """Have HiGHS choose among the offers that the better half of some choices takes.

    Those of some that are `late`, and cheap for that, are among them too.
    """
    if best.choice is None:
        return
    problem = best.problem
    order = problem.totals(choices)[0].argsort()[: max(1, len(choices) // 2)]
    taken = np.zeros(problem.offered.shape, bool)
    for choice in (best.choice, *choices[order], *late):
        taken[problem.rows, choice] = True
    few = replace(problem, costs=np.where(taken, problem.costs, np.inf))
    found = best_choice(
        few, best.goal, seconds=MERGE_SECONDS, start=best.choice, proving=True
    ).choice
    if found is not None:
        best.take(found)


def polish(best: Best) -> None:
    """Sweep over the best choice until that gains nothing."""
    for _ in range(POLISH):
        if best.choice is None:
            return
        choices = best.choice[None]
        descent = Descent(best.problem, best.deadlines(choices))
        if not best.take(descent.backward(descent.forward(choices))):
            return
