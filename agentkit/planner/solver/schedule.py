"""When nodes are really done, where sites work on a limited number of them at once.

Plain lists, no numpy: small plans are timed without it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import TypeAlias

After: TypeAlias = Sequence[Sequence[tuple[int, float]]]
"""For each node its children, and how long its data is under way to each."""


def scheduled(
    seconds: Sequence[float],
    after: After,
    *,
    sites: Sequence[int],
    demands: Sequence[int],
    lanes: Mapping[int, int],
    ids: Sequence[int],
) -> tuple[list[float], list[float]]:
    """Return when each node begins and ends, by list scheduling.

    Nodes stand after their parents.  One whose inputs are there takes its lanes as soon as they
    are free; of those that are ready at once the one with the longest way to go comes first.
    `lanes` holds how many the sites have that limit them.  Where two are equal, the lower of `ids`
    comes first, so that the order in which nodes are given changes nothing.
    """
    count = len(seconds)
    rank = [0.0] * count
    waits = [0] * count
    for node in range(count - 1, -1, -1):
        rank[node] = seconds[node] + max((d + rank[child] for child, d in after[node]), default=0.0)
        for child, _ in after[node]:
            waits[child] += 1
    begins = [0.0] * count
    ends = [0.0] * count
    ready = [0.0] * count
    wanted = dict.fromkeys(lanes, 0)
    for site, demand in zip(sites, demands, strict=True):
        wanted[site] = wanted.get(site, 0) + demand
    free = {site: [0.0] * number for site, number in lanes.items() if number < wanted[site]}
    queue = [(0.0, -rank[node], ids[node], node) for node in range(count) if not waits[node]]
    heapq.heapify(queue)
    while queue:
        *_, node = heapq.heappop(queue)
        mine = free.get(sites[node], [])
        begins[node] = begin(mine, demands[node], ready[node], seconds[node])
        ends[node] = begins[node] + seconds[node]
        for child, delay in after[node]:
            ready[child] = max(ready[child], ends[node] + delay)
            waits[child] -= 1
            if not waits[child]:
                heapq.heappush(queue, (ready[child], -rank[child], ids[child], child))
    return begins, ends


def begin(lanes: list[float], demand: int, ready: float, lasts: float) -> float:
    """Take lanes, those that are free first, and return when all of them are."""
    taken = [heapq.heappop(lanes) for _ in range(min(demand, len(lanes)))]
    start = max([ready, *taken])
    for _ in taken:
        heapq.heappush(lanes, start + lasts)
    return start
