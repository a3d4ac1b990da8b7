"""When each node can begin and end at all: what no choice can beat."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from agentkit.planner.solver.problem import Floats, Problem


@dataclass(frozen=True)
class Windows:
    """Bounds on an arranged problem, [site, node]: infinite where a node has no offer.

    `ready`: no choice has the inputs of a node at a site before; `rest`: none is done with what
    comes after a node at a site sooner.  `earliest`: no choice ends before.
    """

    ready: Floats
    rest: Floats
    earliest: float

    @classmethod
    def of(cls, problem: Problem) -> Windows:
        """Return when each node can start at each site at the earliest, and what must follow it."""
        fastest = _fastest(problem)
        ready = np.zeros_like(fastest)
        ends = fastest.copy()
        for level in problem.levels[1:]:
            edges = level.edges_in
            parents = ends[:, problem.parents[edges]]
            moved = (parents + problem.egress_times[:, edges]).min(0)
            arrive = np.minimum(parents, moved)
            ready[:, level.nodes] = np.maximum.reduceat(arrive, level.starts_in, axis=1)
            ends[:, level.nodes] += ready[:, level.nodes]
        rest = _rest(problem, fastest)
        return cls(ready, rest, float(ends.min(0).max()))

    def within(self, problem: Problem, deadline: float) -> Problem:
        """Return the problem without the offers that no choice in time can have."""
        if not math.isfinite(deadline):
            return problem
        rows = problem.rows[:, None]
        least = self.ready[problem.sites, rows] + problem.times + self.rest[problem.sites, rows]
        fits = problem.offered & (least <= deadline)
        if fits.sum() == problem.offered.sum() or not fits.any(1).all():
            return problem
        return replace(problem, costs=np.where(fits, problem.costs, np.inf))


def _fastest(problem: Problem) -> Floats:
    fastest = np.full((problem.site_count, problem.nodes), np.inf)
    node, offer = np.nonzero(problem.offered)
    np.minimum.at(fastest, (problem.sites[node, offer], node), problem.times[node, offer])
    return fastest


def _rest(problem: Problem, fastest: Floats) -> Floats:
    """Return the least time from the end of each node, at each site, to the end of all."""
    rest = np.zeros_like(fastest)
    for level in reversed(problem.levels):
        if level.parents:
            edges = problem.out[level.edges_out]
            children = problem.children[edges]
            stay = fastest[:, children] + rest[:, children]
            move = problem.egress_times[:, edges] + stay.min(0)
            some = slice(level.nodes.start, level.nodes.start + level.parents)
            after = np.minimum(stay, move)
            rest[:, some] = np.maximum.reduceat(after, level.starts_out, axis=1)
    return rest
