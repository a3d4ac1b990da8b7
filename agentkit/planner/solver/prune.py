"""Offers that no best plan needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agentkit.planner.solver.problem import Floats, Ints, Problem


def pruned(problem: Problem) -> tuple[Problem, Ints]:
    """Return the problem without dominated offers, and which offer each of the rest was.

    An offer is dominated by another one of its node that is no slower and no dearer even when
    every edge that the change of site could touch is paid for and waited for.  Whatever the
    neighbours take, replacing it makes no plan worse.  Sites with few lanes only dominate their
    own offers.
    """
    kept = problem.offered & ~_dominated(problem)
    width = int(kept.sum(1).max())
    first = np.argsort(~kept, axis=1, kind="stable")[:, :width]
    taken = np.take_along_axis(kept, first, 1)
    smaller = replace(
        problem,
        times=np.where(taken, np.take_along_axis(problem.times, first, 1), 0.0),
        costs=np.where(taken, np.take_along_axis(problem.costs, first, 1), np.inf),
        sites=np.take_along_axis(problem.sites, first, 1),
    )
    return smaller, first


def _dominated(problem: Problem) -> NDArray[np.bool_]:
    """Return which offers another of the same node beats in cost and time, whatever has to move."""
    costs, sites = problem.costs, problem.sites
    times = np.where(problem.offered, problem.times, np.inf)
    dearer, slower = _moves(problem)
    gone = np.zeros(costs.shape, bool)
    for other in range(costs.shape[1]):
        there = slice(other, other + 1)
        away = sites != sites[:, there]
        cost = costs[:, there] + np.where(away, dearer[0] + dearer[1][:, there], 0.0)
        time = times[:, there] + np.where(away, slower[0] + slower[1][:, there], 0.0)
        cost[away & (problem.lanes[sites[:, there]] > 0)] = np.inf
        better = (cost < costs) | (time < times) | (np.arange(costs.shape[1]) > other)
        gone |= (cost <= costs) & (time <= times) & better
    return gone


def _moves(problem: Problem) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Return the most that leaving an offer's site, and coming to it, can cost and can last.

    A node that leaves has its parents there pay for the way; one that comes pays for what goes on
    to its children.
    """
    rows = problem.rows[:, None]

    def each(values: Floats, nodes: Ints, gather: np.ufunc) -> Floats:
        total = np.zeros((problem.site_count, problem.nodes))
        for site, row in enumerate(values):
            gather.at(total[site], nodes, row)
        return total[problem.sites, rows]

    parents, children = problem.parents, problem.children
    costs, times = problem.egress_costs, problem.egress_times
    dearer = each(costs, children, np.add), each(costs, parents, np.add)
    slower = each(times, children, np.maximum), each(times, parents, np.maximum)
    return dearer, slower
