"""Making choices cheaper without making them late, node by node, level by level."""

from __future__ import annotations

import math

import numpy as np

from agentkit.planner.solver.problem import Choice, Floats, Level, Problem

EPSILON = 1e-9
"""Seconds by which a float may be late."""


class Descent:
    """Sweeps over an arranged problem that keep a deadline, of several choices side by side.

    Choices are [choice, node]; each may have a deadline of its own.  A level's nodes are on no
    common path, so each of them may use all the time that its parents' ends and its children's
    latest starts leave it.
    """

    def __init__(self, problem: Problem, deadlines: Floats) -> None:
        self.problem = problem
        self.deadlines = deadlines[:, None]
        self._leaving_costs = np.ascontiguousarray(problem.egress_costs[:, problem.out])
        self._leaving_times = np.ascontiguousarray(problem.egress_times[:, problem.out])
        self._sites = np.arange(problem.site_count)[:, None]

    def of(self, chosen: Choice) -> Descent:
        """Return the same for some of the choices."""
        return Descent(self.problem, self.deadlines[chosen, 0])

    def earliest(self) -> Choice:
        """Return the choices that end each node as early as their parents' choices allow."""
        problem = self.problem
        choices = np.zeros((len(self.deadlines), problem.nodes), np.int64)
        ends = np.zeros(choices.shape)
        for level in problem.levels:
            ready, _ = self._coming(level, choices, ends)
            finish = _each(ready, level) + problem.times[level.nodes]
            finish[:, ~problem.offered[level.nodes]] = np.inf
            best = finish.argmin(2)
            choices[:, level.nodes] = best
            ends[:, level.nodes] = _at(finish, best)
        return choices

    def forward(
        self, choices: Choice, prices: Floats | float = EPSILON, fine: float = math.inf
    ) -> Choice:
        """Choose anew from the first level to the last, each node at its least cost in time.

        A second that a node ends later costs its `prices` ([choice, node], or one for all); one
        too late costs `fine`.
        """
        problem = self.problem
        choices = choices.copy()
        starts = self._latest_starts(choices)
        ends = np.zeros(choices.shape)
        per_node = np.broadcast_to(prices, choices.shape)[:, :, None]
        for level in problem.levels:
            ready, costs = self._coming(level, choices, ends)
            due, leaving = self._going(level, choices, starts)
            costs += leaving
            finish = _each(ready, level) + problem.times[level.nodes]
            key = _each(costs, level) + problem.costs[level.nodes]
            key += per_node[:, level.nodes] * finish
            late = finish - _each(due, level)
            if fine == math.inf:
                key[late > EPSILON] = np.inf
            else:
                key += fine * np.maximum(late, 0.0)
            best = self._take(level, choices, key)
            ends[:, level.nodes] = _at(finish, best)
        return choices

    def backward(self, choices: Choice, prices: Floats | float = EPSILON) -> Choice:
        """Choose anew from the last level to the first; parents' ends stay as they are."""
        problem = self.problem
        choices = choices.copy()
        seconds, (_, delays) = problem.times[problem.rows, choices], problem.delays(choices)
        ends = problem.finishes(seconds, delays)
        starts = np.zeros(choices.shape)
        per_node = np.broadcast_to(prices, choices.shape)[:, :, None]
        for level in reversed(problem.levels):
            ready, costs = self._coming(level, choices, ends)
            due, leaving = self._going(level, choices, starts)
            costs += leaving
            start = _each(due, level) - problem.times[level.nodes]
            key = _each(costs, level) + problem.costs[level.nodes]
            key -= per_node[:, level.nodes] * start
            key[start < _each(ready, level) - EPSILON] = np.inf
            best = self._take(level, choices, key)
            starts[:, level.nodes] = _at(start, best)
        return choices

    def _take(self, level: Level, choices: Choice, key: Floats) -> Choice:
        best: Choice = key.argmin(2)
        best = np.where(np.isfinite(_at(key, best)), best, choices[:, level.nodes])
        choices[:, level.nodes] = best
        return best

    def _coming(self, level: Level, choices: Choice, ends: Floats) -> tuple[Floats, Floats]:
        """Return when the inputs of a level's nodes are at each site, and what that costs."""
        problem, edges = self.problem, level.edges_in
        if edges.stop == edges.start:
            shape = len(choices), problem.site_count, level.nodes.stop - level.nodes.start
            return np.zeros(shape), np.zeros(shape)
        parents = problem.parents[edges]
        there = problem.sites[parents, choices[:, parents]]
        every = np.arange(edges.start, edges.stop)
        away = there[:, None] != self._sites
        arrive = ends[:, None, parents] + away * problem.egress_times[there, every][:, None]
        costs = away * problem.egress_costs[there, every][:, None]
        return (
            np.maximum.reduceat(arrive, level.starts_in, axis=2),
            np.add.reduceat(costs, level.starts_in, axis=2),
        )

    def _going(self, level: Level, choices: Choice, starts: Floats) -> tuple[Floats, Floats]:
        """Return when a level's nodes must end at each site, and what going on from there costs."""
        problem, edges = self.problem, level.edges_out
        shape = len(choices), problem.site_count, level.nodes.stop - level.nodes.start
        due, costs = np.empty(shape), np.zeros(shape)
        due[:] = self.deadlines[:, None]
        if level.parents:
            children = problem.out_children[edges]
            away = problem.sites[children, choices[:, children]][:, None] != self._sites
            latest = starts[:, None, children] - away * self._leaving_times[:, edges]
            leaving = away * self._leaving_costs[:, edges]
            some = slice(0, level.parents)
            due[:, :, some] = np.minimum.reduceat(latest, level.starts_out, axis=2)
            costs[:, :, some] = np.add.reduceat(leaving, level.starts_out, axis=2)
        return due, costs

    def _latest_starts(self, choices: Choice) -> Floats:
        problem = self.problem
        seconds = problem.times[problem.rows, choices]
        return problem.latest_starts(seconds, problem.delays(choices)[1], self.deadlines)


def _each(values: Floats, level: Level) -> Floats:
    """Return for each [choice, node, offer] what [choice, site, node] says of its site."""
    return values.reshape(len(values), -1).take(level.at, axis=1)


def _at(values: Floats, best: Choice) -> Floats:
    rows = values.reshape(-1, values.shape[2])
    picked: Floats = rows[np.arange(len(rows)), best.ravel()].reshape(best.shape)
    return picked
