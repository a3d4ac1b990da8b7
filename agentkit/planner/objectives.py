"""Which offers a plan takes, by the wish's objective and within its limits."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from agentkit.errors import NoOffer, OverBudget, PastDeadline
from agentkit.graph.frozen import FrozenGraph
from agentkit.market.allowance import Allowance
from agentkit.market.offer import Offer, Rejection
from agentkit.market.plan import PlannedNode
from agentkit.money import Money
from agentkit.planner import costs
from agentkit.planner.candidates import Candidate
from agentkit.planner.offers import Offered
from agentkit.planner.remaining import Rest
from agentkit.planner.request import Market, Wish
from agentkit.planner.selection import Before, Chosen, choose, cost_of, soonest

MOST_ALTERNATES = 3
HALVINGS = 7
"""How often the span of possible deadlines is halved where the budget is the limit."""


@dataclass(frozen=True)
class Limit:
    """The smallest limit on what a run can come to, by name; `spent` of it is gone."""

    name: str
    amount: Money
    spent: int = 0

    @property
    def left(self) -> int:
        return self.amount.units - self.spent


@dataclass(frozen=True)
class PlanningCase:
    """What a decision is about."""

    graph: FrozenGraph
    market: Market
    wish: Wish
    offered: Mapping[str, Offered]
    candidates: Sequence[Candidate]
    limit: Limit | None
    rest: Rest | None

    def left(self, node: PlannedNode) -> int:
        """Return the base units that what is left of a node can come to."""
        offered = self.offered.get(node.name)
        return offered.left(node.at_most) if offered else 0

    def fits(self, chosen: Chosen) -> bool:
        """Whether a choice's worst case is within the limit."""
        most = costs.at_most_of(chosen, self.offered, self.allowance)
        return self.limit is None or most <= self.limit.left

    @property
    def allowance(self) -> Allowance:
        return self.market.allowance

    @property
    def old(self) -> Before | None:
        """The offers of the plan so far, to begin from."""
        if self.rest is None:
            return None
        plan = self.rest.plan
        offers = {node.name: node.offer for node in plan.nodes if node.offer}
        return Before(offers, plan.second)


def limit_of(wish: Wish, market: Market, rest: Rest | None) -> Limit | None:
    """Return the limit that leaves a run the least, None without one."""
    allowance, in_run = market.allowance, rest.spent if rest else 0
    limits = [("budget", wish.budget, in_run), ("per_run", allowance.per_run, in_run)]
    over_time = {"per_day": allowance.per_day, "total": allowance.total}
    limits += [(name, over_time[name], used.units) for name, used in market.used.items()]
    set_limits = [Limit(name, most, spent) for name, most, spent in limits if most is not None]
    return min(set_limits, key=lambda limit: limit.left, default=None)


def decide(case: PlanningCase) -> tuple[Chosen, tuple[PlannedNode, ...]]:
    """Return the choice by the wish's objective, and what it makes of the nodes.

    Where time alone counts, the order that a policy gave offers has to hold for their seconds too;
    as everywhere, the deadline comes before it.
    """
    if case.wish.weight == 1 and any(node.ordered for node in case.candidates):
        in_order = [costs.in_order_of_time(node) for node in case.candidates]
        with suppress(PastDeadline):
            return _decide(replace(case, candidates=in_order))
    return _decide(case)


def _decide(case: PlanningCase) -> tuple[Chosen, tuple[PlannedNode, ...]]:
    """Return the choice by the objective, and what it makes of the nodes.

    Where its worst case is above the limit, the choice of the least worst case is taken.
    """
    chosen = _by_objective(case)
    nodes = _placed(case, chosen)
    try:
        return chosen, _within(nodes, case)
    except OverBudget:
        least = _least_at_most(case, case.wish.deadline)
        try:
            nodes = _within(_placed(case, least), case)
        except OverBudget as error:
            raise _with_way_out(error, case, least) from None
        return _priced_as(chosen, least, case), nodes


def _priced_as(chosen: Chosen, other: Chosen, case: PlanningCase) -> Chosen:
    """Return another choice with its expected cost, under the bound that holds for both."""
    cost = cost_of(case.candidates, other.offers)
    return replace(chosen, offers=other.offers, times=other.times, cost=cost)


def _by_objective(case: PlanningCase) -> Chosen:
    """Return the choice that the wish's weight between cost and time asks for."""
    wish = case.wish
    if wish.weight == 0:
        return _choose(case, wish.deadline)
    soonest = _soonest(case)
    if wish.weight == 1:
        return soonest
    cheap = choose(case.candidates, effort="quick")
    saved = cheap.times.finish - soonest.times.finish
    if saved <= 0:
        return _choose(case, wish.deadline)
    rate = wish.weight / (1 - wish.weight) * max(0.0, soonest.cost - cheap.cost) / saved
    in_order = [costs.in_order_of_cost(node, rate) for node in case.candidates]
    return _choose(replace(case, candidates=in_order), wish.deadline, rate)


def _choose(case: PlanningCase, deadline: float | None, rate: float = 0.0) -> Chosen:
    return choose(case.candidates, deadline, rate=rate, effort=case.wish.effort, old=case.old)


def _soonest(case: PlanningCase) -> Chosen:
    """Return the cheapest of the choices that end first, within the budget if there is one."""
    first, path = soonest(case.candidates)
    deadline = case.wish.deadline or math.inf
    if first > deadline:
        raise PastDeadline(first, deadline, path)
    chosen = _choose(case, first)
    if case.fits(chosen):
        return chosen
    best = last = _least_at_most(case, case.wish.deadline)
    low, high = first, last.times.finish
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        least = _least_at_most(case, middle)
        if case.fits(least):
            best, high = least, min(middle, least.times.finish)
        else:
            low = middle
    cheapest = _choose(case, best.times.finish)
    return cheapest if case.fits(cheapest) else _priced_as(cheapest, best, case)


def _least_at_most(case: PlanningCase, deadline: float | None) -> Chosen:
    """Return the choice in time whose worst case is the least."""
    worst = [
        costs.at_worst(node, case.offered.get(node.name), case.allowance)
        for node in case.candidates
    ]
    return choose(worst, deadline, effort="quick")


def _with_way_out(wrong: OverBudget, case: PlanningCase, least: Chosen) -> OverBudget:
    """Say what would make an impossible budget possible, and what of that is the cheapest."""
    ways = [f"raise {wrong.limit} to at least {wrong.needed}"]
    if wrong.limit == "per_day" and wrong.already:
        ways.append("or wait for the next day (UTC)")
    if case.wish.deadline is not None:
        relaxed = _least_at_most(case, None)
        if case.fits(relaxed):
            ways.append(f"or set deadline to {math.ceil(relaxed.times.finish)} s or more")
    by_way = {
        name: costs.alone(case.offered[name], offer, case.allowance).units
        for name, offer in least.offers.items()
    }
    if len(ways) == 1 and by_way:
        dearest = max(by_way, key=lambda name: by_way[name])
        share = Money(by_way[dearest], case.market.network.currency)
        ways.append(f"or drop nodes from the graph ({dearest!r} alone can come to {share})")
    return OverBudget(
        wrong.limit, wrong.needed, wrong.allowed, already=wrong.already, hint=", ".join(ways)
    )


# -- places and amounts ---------------------------------------------------------------------------


def _placed(case: PlanningCase, chosen: Chosen) -> tuple[PlannedNode, ...]:
    """Return every node of the graph with its offer and its alternates, those done without."""
    by_name = {node.name: node for node in case.candidates}
    done = Rejection(label="none", reason="it is done")
    return tuple(
        _place(by_name[node.name], case.offered.get(node.name), chosen, case.market)
        if node.name in by_name
        else PlannedNode(name=node.name, rejected=(done,))
        for node in case.graph.nodes
    )


def _place(node: Candidate, offered: Offered | None, chosen: Chosen, market: Market) -> PlannedNode:
    """Return a node with its chosen offer, and the alternates that may step in for it."""
    if offered is None:
        return PlannedNode(name=node.name)
    name, offer = node.name, chosen.offers[node.name]
    replicas = offered.spec.replicas
    most = MOST_ALTERNATES + replicas - 1
    ranked = costs.ranked(node, offer, chosen.seconds.get(name, 0.0))
    others, beyond = tuple(ranked[:most]), ranked[most:]
    if len({o.label for o in (offer, *others)}) < replicas:
        told = [(r.label, r.reason) for r in offered.rejected]
        raise NoOffer(name, [("redundancy", _too_few(offered, replicas)), *told])
    return PlannedNode(
        name=name,
        spec=offered.spec.model_copy(update={"likely": offered.likely}),
        offer=offer,
        alternates=others,
        at_most=costs.at_most(offered.spec, (offer, *others), market.allowance),
        rejected=(*offered.rejected, *(_beyond(o, most) for o in beyond)),
    )


def _beyond(offer: Offer, most: int) -> Rejection:
    return Rejection(label=offer.label, reason=f"ranks behind the {most} alternates that are kept")


def _too_few(offered: Offered, replicas: int) -> str:
    return f"{replicas} provider nodes are needed, and {len(offered.offers)} made an offer"


def _within(nodes: tuple[PlannedNode, ...], case: PlanningCase) -> tuple[PlannedNode, ...]:
    """Drop dear alternates until the worst case fits the limit; raises OverBudget.

    Of all nodes the one that gains the most goes first; what it comes to then is its next gain.
    """
    limit = case.limit
    if limit is None or not nodes:
        return nodes
    zero = limit.amount.asset.zero()
    kept = list(nodes)
    away = added((fee.at_most for fee in costs.egress(case.candidates, kept, zero)), zero)
    total = sum(map(case.left, kept)) + away.units + limit.spent
    gains = [_gain(place, node, case) for place, node in enumerate(kept)]
    heapq.heapify(gains)
    while total > limit.amount.units:
        saved, place = heapq.heappop(gains)
        if not saved:
            needed, already = Money(total, zero.asset), Money(limit.spent, zero.asset)
            raise OverBudget(limit.name, needed, limit.amount, already=already)
        kept[place] = _without_dearest(kept[place], case.market)
        total += saved
        heapq.heappush(gains, _gain(place, kept[place], case))
    return tuple(kept)


def _gain(place: int, node: PlannedNode, case: PlanningCase) -> tuple[int, int]:
    """Return what a node would come to less without its dearest alternate, negative, and where."""
    return case.left(_without_dearest(node, case.market)) - case.left(node), place


def _without_dearest(node: PlannedNode, market: Market) -> PlannedNode:
    """Return the node without the alternate that can cost most, if it has one to spare."""
    if node.spec is None or node.offer is None or len(node.alternates) < node.spec.replicas:
        return node
    dearest = max(node.alternates, key=lambda offer: offer.at_most.units)
    rest = tuple(offer for offer in node.alternates if offer is not dearest)
    too_dear = Rejection(label=dearest.label, reason="as an alternate it would break the budget")
    return node.model_copy(
        update={
            "alternates": rest,
            "at_most": costs.at_most(node.spec, (node.offer, *rest), market.allowance),
            "rejected": (*node.rejected, too_dear),
        }
    )


def added(amounts: Iterable[Money | None], zero: Money) -> Money:
    """Return a sum; None is nothing."""
    return Money(sum(zero.same(amount) for amount in amounts if amount), zero.asset)
