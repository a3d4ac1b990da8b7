"""Making a choice cheaper without making it late, node by node, level by level."""

from __future__ import annotations

import math

import numpy as np

from agentkit.planner.solver.problem import Choice, Floats, Level, Problem

EPSILON = 1e-9
"""Seconds by which a float may be late."""


class Descent:
    """Sweeps over an arranged problem that keep its deadline.

    A level's nodes are on no common path, so each of them may use all the time that its parents'
    ends and its children's latest starts leave it.
    """

    def __init__(self, problem: Problem, deadline: float) -> None:
        self.problem, self.deadline = problem, deadline
        self._leaving_costs = np.ascontiguousarray(problem.egress_costs[:, problem.out])
        self._leaving_times = np.ascontiguousarray(problem.egress_times[:, problem.out])
        self._sites = np.arange(problem.site_count)[:, None]

    def earliest(self) -> Choice:
        """Return the choice that ends each node as early as its parents' choices allow."""
        choice = np.zeros(self.problem.nodes, np.int64)
        ends = np.zeros(self.problem.nodes)
        for level in self.problem.levels:
            ready, _ = self._coming(level, choice, ends)
            finish = ready.ravel()[level.at] + self.problem.times[level.nodes]
            finish[~self.problem.offered[level.nodes]] = np.inf
            best = finish.argmin(1)
            choice[level.nodes] = best
            ends[level.nodes] = finish[np.arange(len(best)), best]
        return choice

    def forward(
        self, choice: Choice, prices: Floats | float = EPSILON, fine: float = math.inf
    ) -> Choice:
        """Choose anew from the first level to the last, each node at its least cost in time.

        A second that a node ends later costs its `prices`; one too late costs `fine`.
        """
        problem = self.problem
        choice = choice.copy()
        starts = self._latest_starts(choice)
        ends = np.zeros(problem.nodes)
        per_node = np.broadcast_to(prices, problem.nodes)[:, None]
        for level in problem.levels:
            ready, costs = self._coming(level, choice, ends)
            due, leaving = self._going(level, choice, starts)
            costs += leaving
            finish = ready.ravel()[level.at] + problem.times[level.nodes]
            key = costs.ravel()[level.at] + problem.costs[level.nodes]
            key += per_node[level.nodes] * finish
            late = finish - due.ravel()[level.at]
            if fine == math.inf:
                key[late > EPSILON] = np.inf
            else:
                key += fine * np.maximum(late, 0.0)
            best = self._take(level, choice, key)
            ends[level.nodes] = finish[np.arange(len(best)), best]
        return choice

    def backward(self, choice: Choice, prices: Floats | float = EPSILON) -> Choice:
        """Choose anew from the last level to the first; parents' ends stay as they are."""
        problem = self.problem
        choice = choice.copy()
        seconds, (_, delays) = problem.times[problem.rows, choice], problem.delays(choice)
        ends = problem.finishes(seconds, delays)
        starts = np.zeros(problem.nodes)
        per_node = np.broadcast_to(prices, problem.nodes)[:, None]
        for level in reversed(problem.levels):
            ready, costs = self._coming(level, choice, ends)
            due, leaving = self._going(level, choice, starts)
            costs += leaving
            start = due.ravel()[level.at] - problem.times[level.nodes]
            key = costs.ravel()[level.at] + problem.costs[level.nodes]
            key += per_node[level.nodes] * (self.deadline - start)
            key[start < ready.ravel()[level.at] - EPSILON] = np.inf
            best = self._take(level, choice, key)
            starts[level.nodes] = start[np.arange(len(best)), best]
        return choice

    def _take(self, level: Level, choice: Choice, key: Floats) -> Choice:
        best: Choice = key.argmin(1)
        none = ~np.isfinite(key[np.arange(len(best)), best])
        if none.any():
            best[none] = choice[level.nodes][none]
        choice[level.nodes] = best
        return best

    def _coming(self, level: Level, choice: Choice, ends: Floats) -> tuple[Floats, Floats]:
        """Return when the inputs of a level's nodes are at each site, and what that costs."""
        problem, edges = self.problem, level.edges_in
        shape = problem.site_count, level.nodes.stop - level.nodes.start
        if edges.stop == edges.start:
            return np.zeros(shape), np.zeros(shape)
        parents = problem.parents[edges]
        there = problem.sites[parents, choice[parents]]
        every = np.arange(edges.start, edges.stop)
        home = there == self._sites
        end = ends[parents]
        arrive = np.where(home, end, end + problem.egress_times[there, every])
        costs = np.where(home, 0.0, problem.egress_costs[there, every])
        return (
            np.maximum.reduceat(arrive, level.starts_in, axis=1),
            np.add.reduceat(costs, level.starts_in, axis=1),
        )

    def _going(self, level: Level, choice: Choice, starts: Floats) -> tuple[Floats, Floats]:
        """Return when a level's nodes must end at each site, and what going on from there costs."""
        problem, edges = self.problem, level.edges_out
        shape = problem.site_count, level.nodes.stop - level.nodes.start
        due, costs = np.full(shape, self.deadline), np.zeros(shape)
        if level.parents:
            children = problem.out_children[edges]
            home = problem.sites[children, choice[children]] == self._sites
            start = starts[children]
            latest = np.where(home, start, start - self._leaving_times[:, edges])
            leaving = np.where(home, 0.0, self._leaving_costs[:, edges])
            due[:, : level.parents] = np.minimum.reduceat(latest, level.starts_out, axis=1)
            costs[:, : level.parents] = np.add.reduceat(leaving, level.starts_out, axis=1)
        return due, costs

    def _latest_starts(self, choice: Choice) -> Floats:
        problem = self.problem
        seconds = problem.times[problem.rows, choice]
        return problem.latest_starts(seconds, problem.delays(choice)[1], self.deadline)
