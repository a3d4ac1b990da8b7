"""One offer for every node: at once where nothing has to be weighed, else by the solver."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentkit.errors import PastDeadline
from agentkit.market.offer import Offer
from agentkit.planner.candidates import Candidate, Timeline, timeline

if TYPE_CHECKING:
    from agentkit.planner.solver.problem import Problem
    from agentkit.planner.solver.solve import Effort, Solution


@dataclass(frozen=True)
class Chosen:
    """An offer for every node that has some, in the units and seconds of the candidates.

    `cost` counts a price of time if there is one; `bound`: no other choice in time has less.
    `second`: about what a second later would save; `seconds` what a second of each node is worth,
    which ranks its alternates.
    """

    offers: Mapping[str, Offer]
    times: Timeline
    cost: float
    bound: float
    second: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def excess(self) -> float:
        """How much cheaper another choice could be at most, in base units."""
        return max(0.0, self.cost - self.bound)


@dataclass(frozen=True)
class Before:
    """The offers of an old plan, and what a second was worth then."""

    offers: Mapping[str, Offer]
    second: float = 0.0


def choose(
    candidates: Sequence[Candidate],
    deadline: float | None = None,
    *,
    rate: float = 0.0,
    effort: Effort = "normal",
    old: Before | None = None,
) -> Chosen:
    """Return the offers of least cost that finish within `deadline` seconds.

    With a `rate`, of least cost plus `rate` for each second until the end.  `old` is where to
    begin.  Raises PastDeadline, naming the longest path and the earliest finish, when none is in
    time.
    """
    plain = _plain(candidates)
    if plain and not rate and (deadline is None or plain.times.finish <= deadline):
        return plain
    return _weighed(candidates, deadline or math.inf, rate, effort, old)


def cost_of(candidates: Sequence[Candidate], offers: Mapping[str, Offer]) -> float:
    """Return what a choice costs, egress counted."""
    total = 0.0
    for node in candidates:
        offer = offers.get(node.name)
        total += next((c for c, number in costs_of(node) if node.offers[number] is offer), 0.0)
        for parent in node.parents:
            source = offers.get(parent)
            if source and not (offer and offer.label == source.label):
                total += _fee(source) * node.sizes.get(parent, 0)
    return total


def soonest(candidates: Sequence[Candidate]) -> tuple[float, tuple[str, ...]]:
    """Return in how many seconds the nodes can all be done, and the longest path then."""
    try:
        chosen = choose(candidates, 1e-9)
    except PastDeadline as late:
        return late.earliest, late.path
    return chosen.times.finish, chosen.times.path


def _plain(candidates: Sequence[Candidate]) -> Chosen | None:
    """Return each node's cheapest offer; None where it matters what its neighbours take."""
    if any(offer.egress for node in candidates for offer in node.offers):
        return None
    best = {node.name: min(costs_of(node)) for node in candidates if node.offers}
    offers = {node.name: node.offers[best[node.name][1]] for node in candidates if node.offers}
    cost = sum(cost for cost, _ in best.values())
    return Chosen(offers, timeline(candidates, offers), cost, cost)


def costs_of(node: Candidate) -> list[tuple[float, int]]:
    """Return what each offer of a node costs, and its number."""
    costs = node.costs or tuple(float(o.price.units * node.items) for o in node.offers)
    return [(cost, number) for number, cost in enumerate(costs)]


def _weighed(
    candidates: Sequence[Candidate],
    deadline: float,
    rate: float,
    effort: Effort,
    old: Before | None,
) -> Chosen:
    """Place the nodes by the solver, because time, egress or lanes have to be weighed."""
    import numpy as np

    from agentkit.planner.solver.lagrange import Goal
    from agentkit.planner.solver.search import Old
    from agentkit.planner.solver.solve import solve

    problem = problem_of(candidates)
    before = None
    if old is not None:
        places = [_place(node, old.offers.get(node.name)) for node in candidates]
        before = Old(np.array(places, dtype=np.int64), old.second)
    solution = solve(problem, Goal(deadline, rate), effort=effort, old=before)
    chosen = _chosen(candidates, solution, rate)
    if not solution.in_time:
        raise PastDeadline(chosen.times.finish, deadline, chosen.times.path)
    return chosen


def _place(node: Candidate, offer: Offer | None) -> int:
    same = [n for n, o in enumerate(node.offers) if offer and o.terms == offer.terms]
    return same[0] if same else 0


def _chosen(candidates: Sequence[Candidate], solution: Solution, rate: float) -> Chosen:
    """Return the solver's answer in offers, with its times and its bound."""
    offers = {
        node.name: node.offers[number]
        for node, number in zip(candidates, solution.choice.tolist(), strict=True)
        if node.offers
    }
    prices = solution.prices.tolist()
    return Chosen(
        offers=offers,
        times=timeline(candidates, offers),
        cost=solution.cost + rate * solution.makespan,
        bound=solution.bound,
        second=solution.price,
        seconds={node.name: price for node, price in zip(candidates, prices, strict=True)},
    )


def problem_of(candidates: Sequence[Candidate]) -> Problem:
    """Return the candidates as arrays; a provider node is a site, this machine is the last one."""
    import numpy as np

    from agentkit.planner.solver.problem import Problem

    known = {offer.label: offer for node in candidates for offer in node.offers}
    site = {label: number for number, label in enumerate(known)}
    here, width = len(site), max(1, max((len(n.offers) for n in candidates), default=1))
    shape = len(candidates), width
    times, costs = np.zeros(shape), np.full(shape, np.inf)
    sites = np.full(shape, here)
    for row, node in enumerate(candidates):
        if not node.offers:
            times[row, 0], costs[row, 0] = node.eta, 0.0
        seconds = node.seconds or tuple(map(node.lasts, node.offers))
        for cost, column in costs_of(node):
            times[row, column], costs[row, column] = seconds[column], cost
            sites[row, column] = site[node.offers[column].label]
    number = {node.name: row for row, node in enumerate(candidates)}
    edges = [
        (number[parent], row, node.sizes.get(parent, 0))
        for row, node in enumerate(candidates)
        for parent in node.parents
    ]
    ends = np.array(edges, dtype=np.int64).reshape(-1, 3)
    fees = np.array([_fee(offer) for offer in known.values()] + [0.0])
    paces = np.array([1 / o.bandwidth if o.bandwidth else 0.0 for o in known.values()] + [0.0])
    demands = [_demand(node) for node in candidates]
    wanted = dict.fromkeys(known, 0)
    for node, demand in zip(candidates, demands, strict=True):
        for label in {offer.label for offer in node.offers}:
            wanted[label] += demand
    # Lanes for all who could want one are no limit.
    lanes = [o.lanes if 0 < o.lanes < wanted[label] else 0 for label, o in known.items()]
    return Problem(
        times=times,
        costs=costs,
        sites=sites,
        parents=ends[:, 0],
        children=ends[:, 1],
        egress_costs=fees[:, None] * ends[None, :, 2],
        egress_times=paces[:, None] * ends[None, :, 2],
        lanes=np.array([*lanes, 0]),
        demands=np.array(demands),
    )


def _fee(offer: Offer) -> float:
    return float(offer.egress.times(1)) if offer.egress else 0.0


def _demand(node: Candidate) -> int:
    return min(node.items, max((max(o.lanes, 1) for o in node.offers), default=1))
