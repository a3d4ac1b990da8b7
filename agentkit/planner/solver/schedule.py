"""When a choice is really done, where sites work on a limited number of nodes at once."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from agentkit.planner.solver.problem import Choice, Floats, Problem


def scheduled(problem: Problem, choice: Choice) -> tuple[Floats, Floats]:
    """Return when each node begins and ends under the sites' lanes, by list scheduling.

    A node whose inputs are there takes its lanes as soon as they are free; of those that are
    ready at once the one with the longest way to go comes first.
    """
    seconds = problem.times[problem.rows, choice]
    delays = problem.delays(choice)[1]
    if not problem.lanes.any():
        ends = problem.finishes(seconds, delays)
        return ends - seconds, ends
    to_go = problem.horizon - problem.latest_starts(seconds, delays, problem.horizon)
    free = {s: [0.0] * int(n) for s, n in enumerate(problem.lanes.tolist()) if n}
    none = [0.0] * problem.nodes
    begins, done, ready = none.copy(), none.copy(), none.copy()
    waits = np.bincount(problem.children, minlength=problem.nodes).tolist()
    after = _children(problem, delays)
    sites = problem.sites[problem.rows, choice].tolist()
    demands, lasts, rank = problem.demands.tolist(), seconds.tolist(), to_go.tolist()
    queue = [(0.0, -rank[node], node) for node, count in enumerate(waits) if not count]
    heapq.heapify(queue)
    while queue:
        _, _, node = heapq.heappop(queue)
        mine = free.get(sites[node], [])
        begins[node] = begin(mine, demands[node], ready[node], lasts[node])
        done[node] = begins[node] + lasts[node]
        for child, delay in after[node]:
            ready[child] = max(ready[child], done[node] + delay)
            waits[child] -= 1
            if not waits[child]:
                heapq.heappush(queue, (ready[child], -rank[child], child))
    return np.array(begins), np.array(done)


def begin(lanes: list[float], demand: int, ready: float, lasts: float) -> float:
    """Take lanes, those that are free first, and return when all of them are."""
    taken = [heapq.heappop(lanes) for _ in range(min(demand, len(lanes)))]
    begin = max([ready, *taken])
    for _ in taken:
        heapq.heappush(lanes, begin + lasts)
    return begin


def _children(problem: Problem, delays: Floats) -> Sequence[list[tuple[int, float]]]:
    after: list[list[tuple[int, float]]] = [[] for _ in range(problem.nodes)]
    edges = zip(problem.parents.tolist(), problem.children.tolist(), delays.tolist(), strict=True)
    for parent, child, delay in edges:
        after[parent].append((child, delay))
    return after
