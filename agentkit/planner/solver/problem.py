"""The problem as arrays: what every offer costs and lasts, and what leaving its site costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Choice: TypeAlias = Ints
"""The number of the offer that each node takes."""


class Level(NamedTuple):
    """Nodes none of which waits for another: a slice of the nodes, with their edges.

    Edges in are a slice of the problem's; edges out a slice of `Levels.out`.  `starts_*` are the
    first edges of each node in its slice, `*_nodes` the node (counted in this level) of each edge.
    The first `parents` nodes are those with edges out.
    """

    nodes: slice
    parents: int
    edges_in: slice
    starts_in: Ints
    in_nodes: Ints
    edges_out: slice
    starts_out: Ints
    out_nodes: Ints
    at: Ints
    """Where [site, node] of the level holds what each [node, offer] needs, in a flat array."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Nodes in an order in which each stands after its parents, each with a choice of offers.

    `times` (seconds) and `costs` (any unit) are [node, offer], the cost infinite where there is no
    such offer; `sites` says where an offer's work is done.  Edge e leads from `parents[e]` to
    `children[e]`; its data leaves site p for another one at `egress_costs[p, e]` in
    `egress_times[p, e]` seconds.  A site works on `lanes[p]` purchases at once, 0 for no limit; a
    node has up to `demands[node]` at once.
    """

    times: Floats
    costs: Floats
    sites: Ints
    parents: Ints
    children: Ints
    egress_costs: Floats
    egress_times: Floats
    lanes: Ints
    demands: Ints
    ids: Ints | None = None
    """What the nodes were numbered before they were arranged."""

    @property
    def nodes(self) -> int:
        return int(self.times.shape[0])

    @property
    def edges(self) -> int:
        return int(self.parents.shape[0])

    @property
    def site_count(self) -> int:
        return int(self.egress_costs.shape[0])

    @cached_property
    def rows(self) -> Ints:
        """The numbers of the nodes."""
        return np.arange(self.nodes)

    @cached_property
    def offered(self) -> NDArray[np.bool_]:
        """Which [node, offer] there are."""
        return np.isfinite(self.costs)

    @cached_property
    def horizon(self) -> float:
        """A time, in seconds, by which every choice is done: all nodes and edges one by one."""
        slowest = np.where(self.offered, self.times, 0.0).max(1, initial=0.0).sum()
        return float(slowest + self.egress_times.max(0, initial=0.0).sum()) + 1.0

    @cached_property
    def is_free_to_move(self) -> bool:
        """Whether nothing depends on where the neighbours of a node are done."""
        return not (self.egress_costs.any() or self.egress_times.any())

    # -- a choice, or several: [node] or [choice, node] ------------------------------------------

    def delays(self, choice: Choice) -> tuple[Floats, Floats]:
        """Return what the edges of a choice cost, and how long their data is under way."""
        places = self.sites[self.rows, choice]
        leaving = places[..., self.parents]
        moved = leaving != places[..., self.children]
        every = np.arange(self.edges)
        costs = np.where(moved, self.egress_costs[leaving, every], 0.0)
        return costs, np.where(moved, self.egress_times[leaving, every], 0.0)

    def totals(self, choice: Choice) -> tuple[Floats, Floats]:
        """Return what choices cost, egress counted, and when they end, lanes not counted."""
        costs, delays = self.delays(choice)
        ends = self.finishes(self.times[self.rows, choice], delays)
        return self.costs[self.rows, choice].sum(-1) + costs.sum(-1), ends.max(-1)

    def cost(self, choice: Choice) -> float:
        """Return what a choice costs, egress counted."""
        return float(self.costs[self.rows, choice].sum() + self.delays(choice)[0].sum())

    def makespan(self, choice: Choice) -> float:
        """Return when the last node ends, lanes not counted."""
        return float(self.totals(choice)[1])

    def finishes(self, seconds: Floats, delays: Floats) -> Floats:
        """Return when each node ends that lasts `seconds`, its edges `delays`."""
        ends = seconds.copy()
        for level in self.levels[1:]:
            edges = level.edges_in
            arrive = ends[..., self.parents[edges]]
            arrive += delays[..., edges]
            ends[..., level.nodes] += np.maximum.reduceat(arrive, level.starts_in, axis=-1)
        return ends

    def latest_starts(self, seconds: Floats, delays: Floats, deadline: float | Floats) -> Floats:
        """Return when each node has to begin at the latest to keep the deadline."""
        starts = deadline - seconds
        leave = delays[..., self.out]
        for level in reversed(self.levels):
            if level.parents:
                edges = level.edges_out
                latest = starts[..., self.out_children[edges]]
                latest -= leave[..., edges]
                some = slice(level.nodes.start, level.nodes.start + level.parents)
                first = np.minimum.reduceat(latest, level.starts_out, axis=-1)
                starts[..., some] += first - deadline
        return starts

    # -- the order in which the sweeps go --------------------------------------------------------

    def arranged(self) -> tuple[Problem, Ints]:
        """Return the same problem with nodes by level and edges by child, and the nodes' order."""
        depth = _depths(self.nodes, self.parents, self.children)
        childless = np.ones(self.nodes, bool)
        childless[self.parents] = False
        order = np.lexsort((childless, depth))
        number = np.empty_like(order)
        number[order] = self.rows
        parents, children = number[self.parents], number[self.children]
        edges = np.lexsort((parents, children))
        return (
            replace(
                self,
                times=np.where(self.offered, self.times, 0.0)[order],  # no infinity to multiply
                costs=self.costs[order],
                sites=self.sites[order],
                demands=self.demands[order],
                ids=order,
                parents=parents[edges],
                children=children[edges],
                egress_costs=np.ascontiguousarray(self.egress_costs[:, edges]),
                egress_times=np.ascontiguousarray(self.egress_times[:, edges]),
            ),
            order,
        )

    @cached_property
    def out(self) -> Ints:
        """The edges by parent."""
        return np.argsort(self.parents, kind="stable")

    @cached_property
    def out_children(self) -> Ints:
        return self.children[self.out]

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The levels of an arranged problem."""
        depth = _depths(self.nodes, self.parents, self.children)
        cuts = np.searchsorted(depth, np.arange(depth[-1] + 2)) if self.nodes else np.zeros(1, int)
        first_in = np.searchsorted(self.children, np.arange(self.nodes + 1))
        first_out = np.searchsorted(self.parents[self.out], np.arange(self.nodes + 1))
        return tuple(self._level(int(a), int(b), first_in, first_out) for a, b in pairwise(cuts))

    def _level(self, a: int, b: int, first_in: Ints, first_out: Ints) -> Level:
        """Return the nodes from `a` up to `b`, which have one depth, with their edges as slices."""
        here = np.arange(b - a)
        counts = np.diff(first_out[a : b + 1])
        parents = int((counts > 0).sum())
        return Level(
            nodes=slice(a, b),
            parents=parents,
            edges_in=slice(int(first_in[a]), int(first_in[b])),
            starts_in=first_in[a:b] - first_in[a],
            in_nodes=np.repeat(here, np.diff(first_in[a : b + 1])),
            edges_out=slice(int(first_out[a]), int(first_out[b])),
            starts_out=first_out[a : a + parents] - first_out[a],
            out_nodes=np.repeat(here, counts),
            at=self.sites[a:b] * (b - a) + here[:, None],
        )


def _depths(nodes: int, parents: Ints, children: Ints) -> Ints:
    """Return the number of edges on the longest way to each node."""
    depth = [0] * nodes
    order = np.argsort(children, kind="stable")
    for parent, child in zip(parents[order].tolist(), children[order].tolist(), strict=True):
        depth[child] = max(depth[child], depth[parent] + 1)
    return np.array(depth, dtype=np.int64)
