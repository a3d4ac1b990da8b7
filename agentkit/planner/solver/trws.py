"""Where the nodes are best done when time has a price: TRW-S, with a certified lower bound.

Sequential tree-reweighted message passing (Kolmogorov, IEEE TPAMI 28(10), 2006) on the sites of
the nodes.  An edge costs what leaving its parent's site costs, and nothing where both its ends are
at one site, so a message takes time linear in the number of sites.
"""

from __future__ import annotations

import numpy as np

from agentkit.planner.solver.problem import Choice, Floats, Level, Problem

FAR = 1e15
"""What a site costs where a node has no offer: more than anything, and no infinity."""


class Trws:
    """Messages along the edges of an arranged problem; they are kept from one run to the next."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        shape = problem.site_count, problem.edges
        self._to_child = np.zeros(shape)  # in the order of the edges
        self._to_parent = np.zeros(shape)  # by parent, as `problem.out` has them
        out = np.bincount(problem.parents, minlength=problem.nodes)
        into = np.bincount(problem.children, minlength=problem.nodes)
        self._share = 1 / np.maximum(1, np.maximum(out, into))
        self._back = np.empty(problem.edges, np.int64)  # where an edge stands by parent
        self._back[problem.out] = np.arange(problem.edges)
        self._offers = _Offers(problem)

    def run(self, prices: Floats, edge_prices: Floats, passes: int = 1) -> tuple[Choice, float]:
        """Return a choice, and a bound on the cost of every choice.

        A second of node i costs `prices[i]`, one of edge e under way `edge_prices[e]`.
        """
        unary = self._offers.price(prices)
        if self.problem.is_free_to_move:
            best = unary.min(0)
            return self._offers.pick(unary.argmin(0)), float(best.sum())
        costs = self.problem.egress_costs + edge_prices * self.problem.egress_times
        leaving = costs[:, self.problem.out]
        for turn in range(passes):
            places = self._forward(unary, costs, leaving, last=turn == passes - 1)
            bound = self._backward(unary, costs)
        return self._offers.pick(places), bound

    def _forward(self, unary: Floats, costs: Floats, leaving: Floats, *, last: bool) -> Choice:
        """Pass messages to the children; on the last pass settle each node as it is reached."""
        places = np.zeros(self.problem.nodes, np.int64)
        for level in self.problem.levels:
            total = unary[:, level.nodes].copy()
            if level.parents:
                back = self._to_parent[:, level.edges_out]
                total[:, : level.parents] += np.add.reduceat(back, level.starts_out, axis=1)
            if last:
                places[level.nodes] = self._settle(level, total, places, costs)
            if not level.parents:
                continue
            if level.edges_in.stop > level.edges_in.start:
                coming = self._to_child[:, level.edges_in]
                total += np.add.reduceat(coming, level.starts_in, axis=1)
            total *= self._share[level.nodes]
            message = total[:, level.out_nodes]
            message -= back
            least = np.minimum.reduce(message + leaving[:, level.edges_out])
            np.minimum(message, least, out=message)
            message -= np.minimum.reduce(message)
            self._to_child[:, self.problem.out[level.edges_out]] = message
        return places

    def _settle(self, level: Level, total: Floats, places: Choice, costs: Floats) -> Choice:
        """Return the best sites of a level's nodes, given those of their parents."""
        edges = level.edges_in
        if edges.stop > edges.start:
            cost = costs[:, edges]
            there = places[self.problem.parents[edges]]
            at_home = there == np.arange(len(cost))[:, None]
            away = np.where(at_home, 0.0, cost[there, np.arange(len(there))])
            total = total + np.add.reduceat(away, level.starts_in, axis=1)
        places_here: Choice = total.argmin(0)
        return places_here

    def _backward(self, unary: Floats, costs: Floats) -> float:
        """Pass messages to the parents and return the bound.

        Nodes are taken away one by one, children first, each replaced by messages that are never
        above what it costs; what they all cost at least is set aside.  That holds whatever the
        messages to the children are, so every pass certifies its bound.
        """
        bound = 0.0
        for level in reversed(self.problem.levels):
            total = unary[:, level.nodes].copy()
            if level.parents:
                back = self._to_parent[:, level.edges_out]
                total[:, : level.parents] += np.add.reduceat(back, level.starts_out, axis=1)
            edges = level.edges_in
            if edges.stop == edges.start:
                bound += float(np.minimum.reduce(total).sum())
                continue
            coming = self._to_child[:, edges]
            total += np.add.reduceat(coming, level.starts_in, axis=1)
            least = np.minimum.reduce(total)
            bound += float(least.sum())
            total -= least
            total *= self._share[level.nodes]
            message = total[:, level.in_nodes]
            message -= coming
            np.minimum(message, np.minimum.reduce(message) + costs[:, edges], out=message)
            least = np.minimum.reduce(message)
            bound += float(least.sum())
            message -= least
            self._to_parent[:, self._back[edges]] = message
        return bound


class _Offers:
    """The offers of all nodes in one row, those of a site and node side by side."""

    def __init__(self, problem: Problem) -> None:
        node, offer = np.nonzero(problem.offered)
        site = problem.sites[node, offer]
        pair = site * problem.nodes + node
        order = np.argsort(pair, kind="stable")
        self._node = node[order]
        self._offer = offer[order]
        self._pair = pair[order]
        self._costs = problem.costs[self._node, self._offer]
        self._times = problem.times[self._node, self._offer]
        self._pairs, self._starts = np.unique(self._pair, return_index=True)
        self._shape = problem.site_count, problem.nodes
        self._priced = self._costs
        self._least = np.full(self._shape, FAR)

    def price(self, prices: Floats) -> Floats:
        """Return what a node costs at least at each [site, node]."""
        self._priced = self._costs + prices[self._node] * self._times
        self._least = np.full(self._shape, FAR)
        self._least.ravel()[self._pairs] = np.minimum.reduceat(self._priced, self._starts)
        return self._least

    def pick(self, places: Choice) -> Choice:
        """Return the offers that made the prices, at one site for each node.

        A node settled where it has no offer takes its best one.
        """
        nodes = np.arange(len(places))
        lost = self._least[places, nodes] >= FAR
        places = np.where(lost, self._least.argmin(0), places)
        there = places[self._node] * len(places) + self._node == self._pair
        best = there & (self._priced <= self._least.ravel()[self._pair])
        choice = np.zeros(len(places), np.int64)
        choice[self._node[best]] = self._offer[best]
        return choice
