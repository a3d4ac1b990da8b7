"""What a second is worth: a price on the deadline, and the bound that follows from it.

Time is paid for along the paths that are late.  For any flow of one unit from the first nodes to
the last, its nodes' and edges' seconds weighted by it are at most the makespan; so the cheapest
choice under prices `price x flow`, less `price x deadline`, is a lower bound on the cost of every
choice that keeps the deadline.  The flow answers the average of the choices so far (fictitious
play), softened by a falling temperature; the price follows how late that average is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agentkit.planner.solver.problem import Choice, Floats, Problem
from agentkit.planner.solver.trws import Trws

ROUNDING = 1e-9
"""The share by which a bound is lowered, as floats are not exact."""


@dataclass(frozen=True)
class Goal:
    """Least cost plus `rate` for each second of the makespan, which may be `deadline` at most."""

    deadline: float = math.inf
    rate: float = 0.0


@dataclass(frozen=True)
class Heat:
    """How long the play goes on, and how soft its flow is at first and in the end.

    Temperatures are shares of what all paths together could soften: the makespan over the
    logarithm of their number.
    """

    first: float
    last: float
    rounds: int
    passes: int = 2
    since: int = 0
    """How many rounds the choice it begins with counts for."""

    def at(self, turn: int) -> float:
        return float(self.first * (self.last / self.first) ** (turn / max(1, self.rounds - 1)))


class Dual:
    """The best bound so far, the price of a second that gave it, and what was chosen on the way.

    `flows` are the average flow through the nodes in each play.
    """

    def __init__(self, problem: Problem, goal: Goal) -> None:
        self.problem, self.goal = problem, goal
        self.trws = Trws(problem)
        none = np.zeros(problem.nodes), np.zeros(problem.edges)
        choice, bound = self.trws.run(*none, passes=3)
        self.bound = self._lowered(bound)
        self.price = goal.rate
        self.flows: list[Floats] = []
        self.choices = [choice]
        self._paths = _log_paths(problem)

    def play(self, heat: Heat, price: float, old: Choice | None = None) -> None:
        """Let price, flow and choices answer one another, from a price of a second on.

        They begin with the cheapest choice, or with an `old` one.
        """
        problem, goal = self.problem, self.goal
        choice = self.choices[0] if old is None else old
        seconds, (_, delays) = problem.times[problem.rows, choice], problem.delays(choice)
        flows, edge_flows = np.zeros(problem.nodes), np.zeros(problem.edges)
        for turn in range(heat.rounds):
            ends = problem.finishes(seconds, delays)
            makespan = float(ends.max())
            temperature = heat.at(turn) * makespan / self._paths
            flow, edge_flow = soft_flow(problem, ends, delays, temperature)
            if math.isfinite(goal.deadline):
                felt = (makespan + float(flow @ seconds + edge_flow @ delays)) / 2
                late = 4.0 / (1 + 0.05 * (turn + heat.since)) * (felt / goal.deadline - 1)
                price = max(goal.rate, price * math.exp(min(0.7, max(-0.7, late))))
            choice = self._see(price, flow, edge_flow, heat.passes)
            step = 2.0 / (turn + heat.since + 3.0)
            seconds += (problem.times[problem.rows, choice] - seconds) * step
            delays += (problem.delays(choice)[1] - delays) * step
            if turn >= heat.rounds // 2:
                flows += flow
                edge_flows += edge_flow
        counted = heat.rounds - heat.rounds // 2
        self.flows.append(flows / counted)
        self._settle(flows / counted, edge_flows / counted)

    def _settle(self, flow: Floats, edge_flow: Floats) -> None:
        """Hold the average flow still, at prices around the best, and let the choices settle."""
        best = self.price or self.goal.rate
        factors = (0.7, 1.0, 1.4) if math.isfinite(self.goal.deadline) else (1.0,)
        for factor in factors:
            self._see(max(self.goal.rate, best * factor), flow, edge_flow, 2)

    def _see(self, price: float, flow: Floats, edge_flow: Floats, passes: int) -> Choice:
        """Place the nodes as if a second cost `price`, and keep the best bound so far.

        `flow` is the share of the run's length that each node stands for, see `soft_flow`.
        """
        choice, bound = self.trws.run(price * flow, price * edge_flow, passes)
        if price > self.goal.rate:
            bound -= (price - self.goal.rate) * self.goal.deadline
        bound = self._lowered(bound)
        if bound > self.bound:
            self.bound, self.price = bound, price
        self.choices.append(choice)
        return choice

    def _lowered(self, bound: float) -> float:
        return bound - abs(bound) * ROUNDING


def soft_flow(
    problem: Problem, ends: Floats, delays: Floats, temperature: float
) -> tuple[Floats, Floats]:
    """Return one unit of flow along the longest paths, through nodes and through edges.

    Of what goes through a node, most comes from the parent it waited for the longest; the lower
    the temperature, the more.
    """
    temperature = max(temperature, 1e-9)
    flow = np.zeros(problem.nodes)
    last = np.ones(problem.nodes, bool)
    last[problem.parents] = False
    flow[last] = np.exp((ends[last] - ends.max()) / temperature)
    flow /= flow.sum()
    shares = _shares(problem, ends[problem.parents] + delays, temperature)[problem.out]
    by_parent = np.empty(problem.edges)
    # A node's flow is that of its children, so children come first.
    for level in reversed(problem.levels):
        if level.parents:
            edges = level.edges_out
            by_parent[edges] = shares[edges] * flow[problem.out_children[edges]]
            some = slice(level.nodes.start, level.nodes.start + level.parents)
            flow[some] += np.add.reduceat(by_parent[edges], level.starts_out)
    edge_flow = np.empty(problem.edges)
    edge_flow[problem.out] = by_parent
    return flow, edge_flow


def _shares(problem: Problem, arrive: Floats, temperature: float) -> Floats:
    """Return the share of its child's flow that each edge carries."""
    if not problem.edges:
        return arrive
    first = np.flatnonzero(np.diff(problem.children, prepend=-1))
    counts = np.diff(first, append=problem.edges)
    latest = np.repeat(np.maximum.reduceat(arrive, first), counts)
    weights = np.exp((arrive - latest) / temperature)
    shares: Floats = weights / np.repeat(np.add.reduceat(weights, first), counts)
    return shares


def _log_paths(problem: Problem) -> float:
    """Return the logarithm of the number of paths, one at least."""
    logs = np.zeros(problem.nodes)
    for level in problem.levels[1:]:
        above = logs[problem.parents[level.edges_in]]
        most = np.maximum.reduceat(above, level.starts_in)
        parts = np.exp(above - most[level.in_nodes])
        logs[level.nodes] = most + np.log(np.add.reduceat(parts, level.starts_in))
    return max(1.0, float(np.logaddexp.reduce(logs)))
