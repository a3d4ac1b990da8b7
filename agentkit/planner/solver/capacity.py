"""Choices for sites that only work on so many nodes at once."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from agentkit.planner.solver import schedule
from agentkit.planner.solver.problem import Choice, Floats, Problem
from agentkit.planner.solver.schedule import begin

ROUNDS = 8
STEPS = 300_000
"""How many node starts the tries for a cheaper choice may cost."""


def priced(problem: Problem, solve: Callable[[Problem], Choice], deadline: float) -> Choice | None:
    """Return the cheapest choice found that keeps the deadline on the sites' lanes.

    Where nodes wait for lanes, a second there gets a price; the problem without lanes is solved
    again under these prices, until nothing waits too long.  None when that leads nowhere.
    """
    fees = np.zeros(problem.site_count)
    found: list[Choice] = []
    second = float(np.median(problem.costs[problem.offered])) / max(
        1e-9, float(np.median(problem.times[problem.offered]))
    )
    for turn in range(ROUNDS):
        fee = fees[problem.sites] * problem.times * problem.demands[:, None]
        choice = solve(replace(problem, costs=problem.costs + fee))
        waits, ends = waited(problem, choice)
        if ends.max() <= deadline:
            found.append(choice)
            if not fees.any():
                break
            fees *= 0.6
        elif waits.any():
            fees += second * 0.25 * 2**turn * waits / waits.max()
        else:
            break
    return min(found, key=problem.cost, default=None)


def scheduled(problem: Problem, choice: Choice) -> tuple[Floats, Floats]:
    """Return when each node begins and ends under the sites' lanes."""
    seconds = problem.times[problem.rows, choice]
    delays = problem.delays(choice)[1]
    if not problem.lanes.any():
        ends = problem.finishes(seconds, delays)
        return ends - seconds, ends
    after: list[list[tuple[int, float]]] = [[] for _ in range(problem.nodes)]
    edges = (problem.parents.tolist(), problem.children.tolist(), delays.tolist())
    for parent, child, delay in zip(*edges, strict=True):
        after[parent].append((child, delay))
    lanes = {site: count for site, count in enumerate(problem.lanes.tolist()) if count}
    sites = problem.sites[problem.rows, choice].tolist()
    begins, done = schedule.scheduled(
        seconds.tolist(),
        after,
        sites=sites,
        demands=problem.demands.tolist(),
        lanes=lanes,
        ids=(problem.rows if problem.ids is None else problem.ids).tolist(),
    )
    return np.array(begins), np.array(done)


def waited(problem: Problem, choice: Choice) -> tuple[Floats, Floats]:
    """Return how long nodes wait for lanes at each site, in all, and when the nodes end."""
    begins, ends = scheduled(problem, choice)
    places = problem.sites[problem.rows, choice]
    arrive = ends[problem.parents] + problem.delays(choice)[1]
    ready = np.zeros(problem.nodes)
    np.maximum.at(ready, problem.children, arrive)
    waits = np.bincount(places, weights=begins - ready, minlength=problem.site_count)
    return waits.astype(float), ends


def earliest(problem: Problem) -> Choice:
    """Return the choice that ends each node as early as lanes allow, the longest ways first.

    List scheduling by upward rank (HEFT: Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002).
    """
    quickest = np.where(problem.offered, problem.times, np.inf).min(1)
    still = problem.latest_starts(quickest, np.zeros(problem.edges), problem.horizon)
    choice = np.zeros(problem.nodes, np.int64)
    ends = np.zeros(problem.nodes)
    lanes = {s: [0.0] * n for s, n in enumerate(problem.lanes.tolist()) if n}
    first = np.searchsorted(problem.children, np.arange(problem.nodes + 1))
    for node in np.lexsort((problem.rows, still)).tolist():
        edges = slice(int(first[node]), int(first[node + 1]))
        choice[node], ends[node] = _place(problem, node, edges, choice, ends, lanes=lanes)
    return choice


def _place(
    problem: Problem,
    node: int,
    edges: slice,
    /,
    choice: Choice,
    ends: Floats,
    *,
    lanes: dict[int, list[float]],
) -> tuple[int, float]:
    """Return the offer that ends a node first, and when; its lanes are taken."""
    parents = problem.parents[edges]
    there = problem.sites[parents, choice[parents]]
    away = problem.egress_times[there, np.arange(edges.start, edges.stop)]
    demand = int(problem.demands[node])
    best, when = -1, math.inf
    for offer in np.flatnonzero(problem.offered[node]).tolist():
        site = int(problem.sites[node, offer])
        ready = float((ends[parents] + np.where(there == site, 0.0, away)).max(initial=0.0))
        queue = lanes.get(site, [])
        free = heapq.nsmallest(min(demand, len(queue)), queue)
        end = max([ready, *free]) + float(problem.times[node, offer])
        if end < when:
            best, when = offer, end
    lasts = float(problem.times[node, best])
    begin(lanes.get(int(problem.sites[node, best]), []), demand, when - lasts, lasts)
    return best, when


def cheaper(problem: Problem, choice: Choice, deadline: float) -> Choice:
    """Return a choice made cheaper one node at a time, as long as the lanes keep the deadline."""
    choice, tries = choice.copy(), STEPS // max(1, problem.nodes)
    saves = problem.costs[problem.rows, choice][:, None] - problem.costs
    pairs = np.argwhere(saves > 0)
    order = np.argsort(-saves[saves > 0], kind="stable")
    cost = problem.cost(choice)
    for node, offer in pairs[order][:tries].tolist():
        other = choice.copy()
        other[node] = offer
        less = problem.cost(other)
        if less < cost and scheduled(problem, other)[1].max() <= deadline:
            choice, cost = other, less
    return choice
