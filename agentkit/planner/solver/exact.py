"""The best choice there is, by mixed integer programming (HiGHS).

Binary x says which offer a node takes, z in [0, 1] that an edge's data leaves a site: it is at
least what of its parent is there less what of its child is.  One z for each edge and site instead
of one for each pair of offers keeps the program small; the sites where the child has no offer need
none, as everything that is there leaves.  The ends of the nodes are the last variables, then the
makespan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentkit.planner.solver.lagrange import ROUNDING, Goal
from agentkit.planner.solver.problem import Choice, Floats, Ints, Problem

OPTIONS: dict[str, bool | float | str] = {
    "mip_rel_gap": 1e-7,
    "output_flag": False,
    "parallel": "off",
    "threads": 1,
    "random_seed": 0,
    "mip_abs_gap": 0.0,
    "mip_allow_restart": False,
    "mip_feasibility_tolerance": 1e-7,
    "primal_feasibility_tolerance": 1e-7,
}

PROVING: dict[str, bool | float | str] = {
    "mip_pscost_minreliable": 0,
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_root_reduced_cost": False,
    "mip_heuristic_run_zi_round": False,
    "mip_heuristic_run_shifting": False,
    "mip_heuristic_run_feasibility_jump": False,
}
"""Where the start is near the best already: look for nothing better, branch at once."""


@dataclass(frozen=True)
class Exact:
    """What HiGHS found in its time: a choice, if any, and a bound on the objective of all."""

    choice: Choice | None
    bound: float
    optimal: bool = False


def best_choice(
    problem: Problem,
    goal: Goal,
    *,
    seconds: float = math.inf,
    start: Choice | None = None,
    free: bool = False,
    proving: bool = False,
) -> Exact:
    """Return the choice of least cost plus priced makespan within the deadline.

    `seconds` limits the search, on one core; `start` is where it begins.  `free` leaves costs
    out; `proving` expects the start to be the best.
    """
    import highspy
    from highspy._core import _Highs  # highspy.Highs prints a banner when it is made

    model = _Model(problem, goal, free=free)
    solver = _Highs()
    options = OPTIONS | {"time_limit": seconds} | (PROVING if proving else {})
    for key, value in options.items():
        solver.setOptionValue(key, value)
    solver.passModel(model.program(highspy))
    if start is not None:
        solution = highspy.HighsSolution()
        solution.col_value = model.values(start).tolist()
        solver.setSolution(solution)
    solver.run()
    status, info = solver.getModelStatus(), solver.getInfo()
    if status == highspy.HighsModelStatus.kInfeasible:
        return Exact(None, math.inf)
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    choice = model.choice(np.array(solver.getSolution().col_value)) if found else None
    return Exact(
        choice,
        model.unscaled(info.mip_dual_bound),
        optimal=status == highspy.HighsModelStatus.kOptimal,
    )


class _Model:
    """The program in HiGHS' terms; costs and seconds are scaled so that the largest is one."""

    def __init__(self, problem: Problem, goal: Goal, *, free: bool) -> None:
        self.problem = problem
        self.goal = goal
        self.free = free
        self.node, self.offer = np.nonzero(problem.offered)
        self.site = problem.sites[self.node, self.offer]
        there = np.zeros((problem.site_count, problem.nodes), bool)
        there[self.site, self.node] = True
        costly = (problem.egress_costs > 0) | (problem.egress_times > 0)
        leaves = there[:, problem.parents] & costly
        stays = there[:, problem.children]
        self.z_site, self.z_edge = np.nonzero(leaves & stays)
        self.l_site, self.l_edge = np.nonzero(leaves & ~stays)
        self.ends = len(self.node) + len(self.z_edge)
        self.columns = self.ends + problem.nodes + 1
        self.scale_cost = float(problem.costs[problem.offered].max()) or 1.0
        self.scale_time = (
            goal.deadline
            if math.isfinite(goal.deadline)
            else float(np.where(problem.offered, problem.times, 0).max(1).sum()) or 1.0
        )
        self._rows: list[tuple[Ints, Ints, Floats]] = []
        self._lower: list[Floats] = []
        self._upper: list[Floats] = []
        self._count = 0
        # The offers of a node stand together, so those at one of its sites are found by pair.
        pair = self.site * problem.nodes + self.node
        self._by_pair = np.argsort(pair, kind="stable")
        self._pairs = pair[self._by_pair]

    def _offers_at(self, site: Ints, node: Ints) -> tuple[Ints, Ints]:
        """Return (which of the pairs given, variable) for every offer of a node at a site."""
        pair = site * self.problem.nodes + node
        first = np.searchsorted(self._pairs, pair)
        counts = np.searchsorted(self._pairs, pair, side="right") - first
        which = np.repeat(np.arange(len(pair)), counts)
        skip = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return which, self._by_pair[np.repeat(first, counts) + skip]

    def _costs(self) -> Floats:
        problem = self.problem
        costs = np.zeros(self.columns)
        costs[: len(self.node)] = problem.costs[self.node, self.offer]
        costs[len(self.node) : self.ends] = problem.egress_costs[self.z_site, self.z_edge]
        which, column = self._offers_at(self.l_site, problem.parents[self.l_edge])
        np.add.at(costs, column, problem.egress_costs[self.l_site, self.l_edge][which])
        return costs

    def _add(self, count: int, low: float, high: float, *terms: tuple[Ints, Ints, Floats]) -> None:
        """Add rows between low and high; a term is (row, column, factor), rows from 0."""
        for row, column, factor in terms:
            self._rows.append((row + self._count, column, factor))
        self._lower.append(np.full(count, low))
        self._upper.append(np.full(count, high))
        self._count += count

    def _constrain(self) -> None:
        """Add the rows that say when a node may start and end."""
        problem, nodes = self.problem, self.problem.nodes
        x, ends = np.arange(len(self.node)), self.ends + np.arange(nodes)
        seconds = problem.times[self.node, self.offer] / self.scale_time
        one, every = np.ones(len(x)), np.arange(nodes)
        self._add(nodes, 1.0, 1.0, (self.node, x, one))
        self._add(nodes, 0.0, math.inf, (every, ends, np.ones(nodes)), (self.node, x, -seconds))
        last = (every, np.full(nodes, self.columns - 1), np.ones(nodes))
        self._add(nodes, 0.0, math.inf, last, (every, ends, -np.ones(nodes)))
        self._leave()
        self._wait(seconds)

    def _leave(self) -> None:
        """Data leaves where its parent is and its child is not."""
        problem, count = self.problem, len(self.z_edge)
        up, up_column = self._offers_at(self.z_site, problem.parents[self.z_edge])
        down, down_column = self._offers_at(self.z_site, problem.children[self.z_edge])
        z = len(self.node) + np.arange(count)
        self._add(
            count,
            0.0,
            math.inf,
            (np.arange(count), z, np.ones(count)),
            (up, up_column, -np.ones(len(up))),
            (down, down_column, np.ones(len(down))),
        )

    def _wait(self, seconds: Floats) -> None:
        """A child ends after its parents' ends, their data's way, and its own work."""
        problem, edges = self.problem, self.problem.edges
        every = np.arange(edges)
        child, column = self._offers_of(problem.children)
        left, left_column = self._offers_at(self.l_site, problem.parents[self.l_edge])
        away = problem.egress_times / self.scale_time
        z = len(self.node) + np.arange(len(self.z_edge))
        self._add(
            edges,
            0.0,
            math.inf,
            (every, self.ends + problem.children, np.ones(edges)),
            (every, self.ends + problem.parents, -np.ones(edges)),
            (child, column, -seconds[column]),
            (self.z_edge, z, -away[self.z_site, self.z_edge]),
            (self.l_edge[left], left_column, -away[self.l_site, self.l_edge][left]),
        )

    def _offers_of(self, nodes: Ints) -> tuple[Ints, Ints]:
        first = np.searchsorted(self.node, nodes)
        counts = np.searchsorted(self.node, nodes, side="right") - first
        which = np.repeat(np.arange(len(nodes)), counts)
        skip = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return which, np.repeat(first, counts) + skip

    def program(self, highspy: Any) -> Any:
        """Return the program as HiGHS takes it."""
        costs = self._costs()
        self._constrain()
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = self.columns, self._count
        objective = costs * (0.0 if self.free else 1.0) / self.scale_cost
        objective[-1] += self.goal.rate * self.scale_time / self.scale_cost
        program.col_cost_ = objective
        program.col_lower_ = np.zeros(self.columns)
        upper = np.ones(self.columns)
        upper[self.ends :] = self.goal.deadline / self.scale_time
        program.col_upper_ = upper
        program.row_lower_ = np.concatenate(self._lower)
        program.row_upper_ = np.concatenate(self._upper)
        row, column, factor = (np.concatenate(part) for part in zip(*self._rows, strict=True))
        order = np.argsort(row, kind="stable")
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.start_ = np.searchsorted(row[order], np.arange(self._count + 1))
        program.a_matrix_.index_ = column[order]
        program.a_matrix_.value_ = factor[order]
        whole, part = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
        x = len(self.node)
        program.integrality_ = [whole] * x + [part] * (self.columns - x)
        return program

    def values(self, choice: Choice) -> Floats:
        """Return the variables of a choice."""
        problem = self.problem
        places = problem.sites[problem.rows, choice]
        seconds = problem.times[problem.rows, choice]
        ends = problem.finishes(seconds, problem.delays(choice)[1]) / self.scale_time
        leaves = places[problem.parents[self.z_edge]] == self.z_site
        stays = places[problem.children[self.z_edge]] == self.z_site
        taken = choice[self.node] == self.offer
        return np.concatenate([taken, leaves & ~stays, ends, [ends.max()]]).astype(float)

    def choice(self, values: Floats) -> Choice:
        weights = np.full(self.problem.offered.shape, -1.0)
        weights[self.node, self.offer] = values[: len(self.node)]
        best: Choice = weights.argmax(1)
        return best

    def unscaled(self, objective: float) -> float:
        """Return a bound on the objective, lowered by what HiGHS may be off."""
        value = objective * self.scale_cost
        return value - abs(value) * ROUNDING
