"""The solver against every choice there is, against HiGHS, and against simple routers.

`cost_and_makespan` knows nothing of the solver: it adds up a choice edge by edge.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.drawn_cases import cases

from agentkit.planner.solver import baselines, capacity
from agentkit.planner.solver.exact import best_choice
from agentkit.planner.solver.lagrange import Dual, Goal, Heat
from agentkit.planner.solver.problem import Problem
from agentkit.planner.solver.prune import pruned
from agentkit.planner.solver.search import Care, Old, search
from agentkit.planner.solver.solve import solve
from agentkit.planner.solver.trws import Trws
from agentkit.planner.solver.windows import Windows


def drawn(
    nodes: int,
    offers: int,
    seed: int,
    *,
    sites: int = 3,
    egress: bool = True,
    edges: float = 0.4,
    lanes: int = 0,
) -> Problem:
    """Return a random problem; offers that are missing, free egress and shuffled edges occur."""
    draw = np.random.default_rng(seed)
    pairs = [
        (a, b) for b in range(nodes) for a in range(b) if draw.random() < edges / (1 + (b - a) / 3)
    ]
    draw.shuffle(pairs)
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    there = draw.random((nodes, offers)) < 0.8
    there[:, 0] = True
    away = draw.uniform(0, 4, len(pairs)) * egress
    return Problem(
        times=np.where(there, draw.uniform(1, 20, (nodes, offers)), 0.0),
        costs=np.where(there, draw.uniform(1, 20, (nodes, offers)), np.inf),
        sites=draw.integers(0, sites, (nodes, offers)),
        parents=ends[:, 0],
        children=ends[:, 1],
        egress_costs=draw.choice([0.0, 0.5, 2.0], sites)[:, None] * away,
        egress_times=draw.choice([0.0, 1.0, 3.0], sites)[:, None] * away,
        lanes=np.full(sites, lanes),
        demands=np.ones(nodes, int),
    )


def layered(nodes: int, seed: int) -> Problem:
    """Return a graph of square layers with twelve offers of five sites for each node."""
    draw = np.random.default_rng(seed)
    width = round(nodes**0.5)
    ends = np.array(
        [
            (parent, node)
            for node in range(width, nodes)
            for parent in {*draw.integers((node // width - 1) * width, node // width * width, 3)}
        ]
    )
    sites = np.broadcast_to(draw.integers(0, 5, 12), (nodes, 12)).copy()
    speed = draw.lognormal(0, 0.7, 12)
    times = draw.lognormal(3, 1, nodes)[:, None] / speed * draw.lognormal(0, 0.2, (nodes, 12))
    away = draw.lognormal(-1, 1, len(ends))
    return Problem(
        times=times,
        costs=times * speed**1.3 * draw.lognormal(0, 0.3, 12),
        sites=sites,
        parents=ends[:, 0],
        children=ends[:, 1],
        egress_costs=draw.choice([0, 10, 40], 5)[:, None] * away,
        egress_times=draw.uniform(1, 9, 5)[:, None] * away,
        lanes=np.zeros(5, int),
        demands=np.ones(nodes, int),
    )


def cost_and_makespan(problem: Problem, choice: Sequence[int]) -> tuple[float, float]:
    cost, ends = 0.0, [0.0] * problem.nodes
    for node in range(problem.nodes):
        cost += problem.costs[node, choice[node]]
        ready = 0.0
        for edge in np.flatnonzero(problem.children == node):
            parent = problem.parents[edge]
            site = problem.sites[parent, choice[parent]]
            moves = site != problem.sites[node, choice[node]]
            cost += moves * problem.egress_costs[site, edge]
            ready = max(ready, ends[parent] + moves * problem.egress_times[site, edge])
        ends[node] = ready + problem.times[node, choice[node]]
    return float(cost), float(max(ends))


def every_choice(problem: Problem) -> list[tuple[float, float]]:
    offers = [np.flatnonzero(problem.offered[node]) for node in range(problem.nodes)]
    return [cost_and_makespan(problem, choice) for choice in itertools.product(*offers)]


def deadline_of(problem: Problem, share: float) -> float:
    arranged, _ = problem.arranged()
    fast = arranged.makespan(baselines.fastest(arranged))
    slow = arranged.makespan(arranged.costs.argmin(1))
    return fast + share * max(0.0, slow - fast)


SEEDS = st.integers(0, 10**6)


# -- against every choice ------------------------------------------------------------------------


@settings(max_examples=cases(60), deadline=None)
@given(seed=SEEDS, nodes=st.integers(1, 5), share=st.floats(0, 1), egress=st.booleans())
def test_small_graphs_get_the_best_choice_there_is(
    seed: int, nodes: int, share: float, egress: bool
) -> None:
    problem = drawn(nodes, 3, seed, egress=egress)
    deadline = deadline_of(problem, share)
    found = solve(problem, Goal(deadline))
    cost, makespan = cost_and_makespan(problem, found.choice.tolist())
    best = min(cost for cost, late in every_choice(problem) if late <= deadline)
    assert makespan <= deadline
    assert found.in_time
    assert cost == pytest.approx(best, rel=1e-6)
    assert found.bound <= best * (1 + 1e-9)
    assert (found.cost, found.makespan) == pytest.approx((cost, makespan))


@settings(max_examples=cases(40), deadline=None)
@given(seed=SEEDS, nodes=st.integers(2, 5), share=st.floats(0, 1))
def test_no_bound_is_above_the_best(seed: int, nodes: int, share: float) -> None:
    """The bound of the search alone, which is what large graphs print."""
    problem, _ = drawn(nodes, 3, seed).arranged()
    goal = Goal(deadline_of(problem, share))
    found = search(problem, goal, [baselines.fastest(problem)], Care((Heat(3, 0.1, 12),)))
    best = min(cost for cost, late in every_choice(problem) if late <= goal.deadline)
    assert found.bound <= best * (1 + 1e-9)
    assert found.choice is not None
    assert problem.makespan(found.choice) <= goal.deadline


@settings(max_examples=cases(25), deadline=None)
@given(seed=SEEDS, nodes=st.integers(1, 4), rate=st.floats(0.01, 3))
def test_a_price_of_time_is_weighed_exactly(seed: int, nodes: int, rate: float) -> None:
    problem = drawn(nodes, 3, seed)
    found = solve(problem, Goal(rate=rate))
    best = min(cost + rate * makespan for cost, makespan in every_choice(problem))
    assert found.cost + rate * found.makespan == pytest.approx(best, rel=1e-6)
    assert found.bound <= best * (1 + 1e-9)


@settings(max_examples=cases(40), deadline=None)
@given(seed=SEEDS, share=st.floats(0, 1), egress=st.booleans())
def test_what_is_pruned_is_in_no_best_choice(seed: int, share: float, egress: bool) -> None:
    problem, _ = drawn(4, 4, seed, egress=egress).arranged()
    deadline = deadline_of(problem, share)
    small, kept = pruned(problem)
    small = Windows.of(small).within(small, deadline)
    best = min(cost for cost, late in every_choice(problem) if late <= deadline)
    rest = min(cost for cost, late in every_choice(small) if late <= deadline)
    assert rest == pytest.approx(best)
    assert (kept < problem.costs.shape[1]).all()


def test_pruning_leaves_a_frontier_where_nothing_has_to_move() -> None:
    problem = drawn(30, 12, 5, egress=False)
    small, _ = pruned(problem)
    assert small.offered.sum() < problem.offered.sum() / 3
    for node in range(small.nodes):
        pairs = sorted(zip(small.times[node], small.costs[node], small.offered[node], strict=True))
        costs = [cost for _, cost, there in pairs if there]
        assert costs == sorted(costs, reverse=True)


@settings(max_examples=cases(30), deadline=None)
@given(seed=SEEDS, nodes=st.integers(1, 5))
def test_no_choice_ends_before_the_earliest(seed: int, nodes: int) -> None:
    problem, _ = drawn(nodes, 3, seed).arranged()
    first = min(makespan for _, makespan in every_choice(problem))
    windows = Windows.of(problem)
    assert windows.earliest <= first + 1e-9
    late = solve(problem, Goal(windows.earliest * 0.99))
    assert not late.in_time
    assert late.makespan >= first - 1e-9


def test_a_choice_in_time_is_found_where_the_simple_fastest_one_is_late() -> None:
    """The first node's fastest offer is at a site from which nothing gets away in time."""
    problem = Problem(
        times=np.array([[1.0, 2.0], [5.0, 9.0]]),
        costs=np.array([[1.0, 1.0], [1.0, np.inf]]),
        sites=np.array([[0, 1], [1, 1]]),
        parents=np.array([0]),
        children=np.array([1]),
        egress_costs=np.zeros((2, 1)),
        egress_times=np.array([[50.0], [0.0]]),
        lanes=np.zeros(2, int),
        demands=np.ones(2, int),
    )
    assert problem.makespan(baselines.fastest(problem)) == 56
    found = solve(problem, Goal(10.0))
    assert found.in_time
    assert found.choice.tolist() == [1, 0]


# -- larger graphs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.lengthy) for seed in (1, 2))]
)
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_large_plans_are_in_time_near_the_best_and_no_dearer_than_rivals(
    seed: int, share: float
) -> None:
    problem = layered(64, seed)
    deadline = deadline_of(problem, share)
    found = solve(problem, Goal(deadline))
    cost, makespan = cost_and_makespan(problem, found.choice.tolist())
    assert makespan <= deadline
    assert cost == pytest.approx(found.cost)
    others = [rival for rival in found.rivals.values() if rival is not None]
    assert cost <= min(others) * (1 + 1e-9)
    exact = best_choice(problem, Goal(deadline), seconds=2, start=found.choice)
    assert exact.choice is not None
    assert found.bound <= problem.arranged()[0].cost(exact.choice[problem.arranged()[1]]) + 1e-9
    assert cost <= cost_and_makespan(problem, exact.choice.tolist())[0] * 1.05


def test_high_effort_is_never_worse_and_bounds_closer() -> None:
    problem = layered(36, 4)
    goal = Goal(deadline_of(problem, 0.2))
    normal, high = solve(problem, goal), solve(problem, goal, effort="high")
    assert high.cost <= normal.cost
    assert high.bound >= normal.bound
    assert high.gap <= 1e-6


def test_the_order_of_nodes_and_edges_does_not_matter() -> None:
    problem = layered(49, 2)
    goal = Goal(deadline_of(problem, 0.3))
    shuffled = np.random.default_rng(1).permutation(problem.edges)
    other = replace(
        problem,
        parents=problem.parents[shuffled],
        children=problem.children[shuffled],
        egress_costs=problem.egress_costs[:, shuffled],
        egress_times=problem.egress_times[:, shuffled],
    )
    assert solve(other, goal).cost == pytest.approx(solve(problem, goal).cost)


def test_an_old_choice_is_where_a_new_one_begins() -> None:
    problem = layered(64, 1)
    goal = Goal(deadline_of(problem, 0.3))
    old = solve(problem, goal)
    before = Old(old.choice, old.price)
    assert solve(problem, goal, old=before).cost <= old.cost
    sooner = Goal(goal.deadline * 0.97)
    again = solve(problem, sooner, old=before)
    assert again.in_time
    assert again.cost <= solve(problem, sooner).cost * 1.1


@pytest.mark.parametrize("seed", range(6))
def test_an_old_choice_is_kept_where_nothing_better_is_near(seed: int) -> None:
    """Also where a better offer now stands for one that it takes."""
    problem = layered(121, seed)
    goal = Goal(deadline_of(problem, 0.3))
    old = solve(problem, goal)
    drawn = np.random.default_rng(seed).uniform(0.8, 1.2, problem.costs.shape)
    changed = replace(problem, costs=problem.costs * drawn)
    near = solve(changed, goal, old=Old(old.choice, old.price))
    assert near.in_time
    assert near.cost <= changed.cost(old.choice)


def test_a_chain_and_lone_nodes_are_graphs_too() -> None:
    draw = np.random.default_rng(0)
    shape = (200, 4)
    chain = Problem(
        times=draw.uniform(1, 9, shape),
        costs=draw.uniform(1, 9, shape),
        sites=draw.integers(0, 2, shape),
        parents=np.arange(199),
        children=np.arange(1, 200),
        egress_costs=np.full((2, 199), 0.5),
        egress_times=np.full((2, 199), 0.5),
        lanes=np.zeros(2, int),
        demands=np.ones(200, int),
    )
    found = solve(chain, Goal(deadline_of(chain, 0.3)))
    assert found.in_time
    assert found.gap < 0.1
    none = np.zeros(0, int)
    alone = replace(
        chain,
        parents=none,
        children=none,
        egress_costs=np.zeros((2, 0)),
        egress_times=np.zeros((2, 0)),
    )
    assert solve(alone, Goal(9.0)).cost == pytest.approx(alone.costs.min(1).sum())
    assert solve(alone, Goal(0.5)).in_time is False


# -- parts ---------------------------------------------------------------------------------------


@settings(max_examples=cases(30), deadline=None)
@given(seed=SEEDS, nodes=st.integers(2, 5))
def test_messages_bound_the_priced_problem(seed: int, nodes: int) -> None:
    """Whatever the prices and whatever messages are left from before."""
    problem, _ = drawn(nodes, 3, seed).arranged()
    draw = np.random.default_rng(seed)
    trws = Trws(problem)
    for _ in range(3):
        prices, edge_prices = draw.uniform(0, 2, nodes), draw.uniform(0, 2, problem.edges)
        _, bound = trws.run(prices, edge_prices, passes=2)
        priced = replace(
            problem,
            costs=problem.costs + prices[:, None] * problem.times,
            egress_costs=problem.egress_costs + edge_prices * problem.egress_times,
        )
        best = min(cost for cost, _ in every_choice(priced))
        assert bound <= best + 1e-9
        trws._to_child[:] = draw.uniform(-5, 5, trws._to_child.shape)
        anyhow = trws._backward(trws._offers.price(prices), priced.egress_costs)
        assert anyhow <= best + 1e-9


def test_a_node_that_two_parents_pull_at_is_counted_once() -> None:
    """Both parents are at site 1; the child is there for 7, or elsewhere for their egress."""
    problem = Problem(
        times=np.ones((3, 2)),
        costs=np.array([[1.0, np.inf], [1.0, np.inf], [0.0, 7.0]]),
        sites=np.array([[1, 0], [1, 0], [0, 1]]),
        parents=np.array([0, 1]),
        children=np.array([2, 2]),
        egress_costs=np.full((2, 2), 5.0),
        egress_times=np.zeros((2, 2)),
        lanes=np.zeros(2, int),
        demands=np.ones(3, int),
    ).arranged()[0]
    choice, bound = Trws(problem).run(np.zeros(3), np.zeros(2), passes=3)
    assert bound == pytest.approx(9.0)
    assert problem.cost(choice) == pytest.approx(9.0)


def test_a_chain_is_solved_by_messages_alone() -> None:
    """TRW-S is exact on trees."""
    problem = replace(drawn(6, 3, 3, edges=0), parents=np.arange(5), children=np.arange(1, 6))
    problem = replace(
        problem, egress_costs=np.full((3, 5), 2.0), egress_times=np.zeros((3, 5))
    ).arranged()[0]
    choice, bound = Trws(problem).run(np.zeros(6), np.zeros(5), passes=3)
    best = min(cost for cost, _ in every_choice(problem))
    assert bound == pytest.approx(best)
    assert problem.cost(choice) == pytest.approx(best)


def test_the_price_of_a_second_is_what_a_later_deadline_saves() -> None:
    problem = layered(64, 0)
    deadline = deadline_of(problem, 0.3)
    dual = Dual(problem.arranged()[0], Goal(deadline))
    dual.play(Heat(3, 0.1, 40), 1.0)
    saved = solve(problem, Goal(deadline)).cost - solve(problem, Goal(deadline * 1.2)).cost
    assert saved / (0.2 * deadline) == pytest.approx(dual.price, rel=0.7)


def test_rivals_are_what_they_say() -> None:
    problem, _ = layered(49, 3).arranged()
    deadline = deadline_of(problem, 0.5)
    slack, single = baselines.slack_router(problem, deadline), baselines.single(problem, deadline)
    assert slack is not None
    assert problem.makespan(slack) <= deadline
    if single is not None:
        assert len(set(problem.sites[problem.rows, single])) == 1
    fast = problem.makespan(baselines.fastest(problem))
    assert baselines.slack_router(problem, fast / 9) is None
    assert baselines.slack_router(problem, math.inf) is not None


# -- lanes ---------------------------------------------------------------------------------------


def test_a_site_with_few_lanes_is_not_given_more_than_it_can_do() -> None:
    """Eight nodes at once at the cheap site would take four times as long."""
    nodes = 8
    problem = Problem(
        times=np.full((nodes, 2), 10.0),
        costs=np.tile([1.0, 3.0], (nodes, 1)),
        sites=np.tile([0, 1], (nodes, 1)),
        parents=np.zeros(0, int),
        children=np.zeros(0, int),
        egress_costs=np.zeros((2, 0)),
        egress_times=np.zeros((2, 0)),
        lanes=np.array([2, 0]),
        demands=np.ones(nodes, int),
    )
    for deadline, cheap in ((10.0, 2), (20.0, 4), (40.0, 8)):
        found = solve(problem, Goal(deadline))
        assert found.in_time
        assert found.makespan <= deadline
        assert (found.choice == 0).sum() == cheap
        assert found.bound <= found.cost
    assert not solve(replace(problem, lanes=np.array([2, 2])), Goal(15.0)).in_time
    assert solve(problem, Goal()).makespan == 40.0


@settings(max_examples=cases(20), deadline=None)
@given(seed=SEEDS)
def test_lanes_are_never_overbooked(seed: int) -> None:
    problem, _ = drawn(12, 3, seed, lanes=2).arranged()
    found = solve(problem, Goal(deadline_of(problem, 0.7)))
    begins, ends = capacity.scheduled(problem, found.choice)
    assert ends.max() == pytest.approx(found.makespan)
    places = problem.sites[problem.rows, found.choice]
    for begin in begins:
        running = (begins <= begin + 1e-9) & (ends > begin + 1e-9)
        assert max(np.bincount(places[running]), default=0) <= 2
    delays = problem.delays(found.choice)[1]
    assert (begins[problem.children] >= ends[problem.parents] + delays - 1e-9).all()
