"""What offers weigh: in base units, in seconds, at worst, and against one another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from statistics import NormalDist

from agentkit.market.allowance import Allowance
from agentkit.market.offer import Offer
from agentkit.market.plan import Fee, PlannedNode
from agentkit.market.task import TaskSpec
from agentkit.money import Money, rounded_up
from agentkit.planner.candidates import Candidate
from agentkit.planner.offers import Offered
from agentkit.planner.policy import effective_price
from agentkit.planner.request import Wish
from agentkit.planner.selection import Chosen

SPREAD = 0.5
"""How much ETAs are taken to vary: the standard deviation of their logarithm (log-normal)."""

AHEAD = 1e-9
"""The share by which an offer costs more than one that a policy puts before it."""


def candidate(
    name: str,
    offered: Offered | None,
    parents: Sequence[str],
    read: Mapping[str, int],
    wish: Wish,
    *,
    here: float,
) -> Candidate:
    """Return a node as it is placed; without offers it takes `here` seconds on this machine."""
    if offered is None:
        return Candidate(name, (), tuple(parents), eta=here, sizes=read)
    costs = [_cost(offered, offer) for offer in offered.offers]
    seconds = [_seconds(offered, offer, wish.risk) for offer in offered.offers]
    node = Candidate(
        name=name,
        offers=offered.offers,
        parents=tuple(parents),
        items=offered.items,
        costs=tuple(costs),
        seconds=tuple(seconds),
        sizes=read,
        ordered=offered.ordered,
    )
    return in_order_of_cost(node)


def _cost(offered: Offered, offer: Offer) -> float:
    """Return what a node is expected to come to: replicas are bought from others, the cheapest."""
    others = _replicas(offered, offer)
    return sum(map(effective_price, (offer, *others))) * offered.likely


def _seconds(offered: Offered, offer: Offer, risk: float) -> float:
    """Return how long a node takes in a share `risk` of cases, tries that fail counted."""
    late = math.exp(NormalDist().inv_cdf(risk) * SPREAD)
    together = (offer, *_replicas(offered, offer))
    return max(o.seconds(offered.items) / o.reputation for o in together) * late


def _replicas(offered: Offered, offer: Offer) -> list[Offer]:
    """Return the offers, each of another provider node, that a choice's replicas would go to."""
    wanted = offered.spec.replicas - 1
    others: dict[str, Offer] = {}
    if wanted:
        for other in sorted(offered.offers, key=effective_price):
            if other.label != offer.label:
                others.setdefault(other.label, other)
    return list(others.values())[:wanted]


def in_order_of_cost(node: Candidate, rate: float = 0.0) -> Candidate:
    """Return a node whose costs rise in the order that a policy gave its offers, if one did.

    They rise so that no offer weighs less than one before it at any price of a second up to
    `rate`: an offer that is faster costs as much more as its seconds are worth.
    """
    if not node.ordered:
        return node
    costs = [node.costs[0]]
    for place in range(1, len(node.costs)):
        saved = max(0.0, node.seconds[place - 1] - node.seconds[place])
        costs.append(max(node.costs[place], _ahead_of(costs[-1] + rate * saved)))
    return replace(node, costs=tuple(costs))


def in_order_of_time(node: Candidate) -> Candidate:
    """Return a node whose seconds rise in the order that a policy gave its offers, if one did."""
    if not node.ordered:
        return node
    seconds = [node.seconds[0]]
    for lasts in node.seconds[1:]:
        seconds.append(max(lasts, _ahead_of(seconds[-1])))
    return replace(node, seconds=tuple(seconds))


def _ahead_of(weight: float) -> float:
    """Return the least that weighs more than a weight, so that ties do not undo an order."""
    return weight * (1 + AHEAD) + AHEAD


def ranked(node: Candidate, offer: Offer, second: float) -> list[Offer]:
    """Return the offers that step in for one, by cost at the price of a second of the node."""
    weighed = [
        (cost + second * lasts, place)
        for place, (cost, lasts) in enumerate(zip(node.costs, node.seconds, strict=True))
    ]
    others = [node.offers[place] for _, place in sorted(weighed)]
    return [o for o in others if o is not offer and not _same(o, offer)]


def _same(one: Offer, other: Offer) -> bool:
    return one.label == other.label and one.terms == other.terms


# -- at worst ------------------------------------------------------------------------------------


def at_most(spec: TaskSpec, offers: Sequence[Offer], allowance: Allowance) -> Money:
    """Return the most a node can come to.

    replicas x items x the dearest offer x (1 + attempts that could be billed without delivery).
    """
    dearest = max(offers, key=lambda offer: offer.at_most.units).at_most
    lost = max(_lost(spec, o, allowance) for o in offers)
    return dearest * spec.items * spec.replicas * (1 + lost)


def _lost(spec: TaskSpec, offer: Offer, allowance: Allowance) -> int:
    """How many attempts this offer could bill without delivering, before the run would pause."""
    if offer.pays == "on_delivery" or offer.finds:
        return 0
    below = allowance.rebuy_below
    rebuys = spec.node.on_unknown == "rebuy" or (below is not None and offer.at_most < below)
    return spec.node.retries if rebuys else 0


def at_worst(node: Candidate, offered: Offered | None, allowance: Allowance) -> Candidate:
    """Return a candidate whose costs are what its offers can come to at most."""
    if offered is None:
        return node
    costs = tuple(float(offered.left(alone(offered, o, allowance))) for o in node.offers)
    return replace(node, costs=costs)


def alone(offered: Offered, offer: Offer, allowance: Allowance) -> Money:
    """Return the most that a node can come to with an offer and no alternate."""
    return at_most(offered.spec, (offer, *_replicas(offered, offer)), allowance)


def at_most_of(chosen: Chosen, offered: Mapping[str, Offered], allowance: Allowance) -> int:
    """Return the base units that a choice can come to without alternates."""
    return sum(
        offered[name].left(alone(offered[name], offer, allowance))
        for name, offer in chosen.offers.items()
    )


# -- what leaves a provider ----------------------------------------------------------------------


def egress(
    candidates: Sequence[Candidate], nodes: Sequence[PlannedNode], zero: Money
) -> tuple[Fee, ...]:
    """Return what providers charge for data that goes on to others, as rows of a plan.

    At most it goes twice as far: sizes are assumed, and any alternate may step in.
    """
    placed = {node.name: node for node in nodes}
    fees: dict[str, Fee] = {}
    for node in candidates:
        for parent, size in node.sizes.items():
            if parent in placed and placed[parent].offer is not None:
                _add(fees, placed[parent], placed[node.name], size, zero)
    return tuple(fees.values())


def _add(
    fees: dict[str, Fee], source: PlannedNode, target: PlannedNode, size: int, zero: Money
) -> None:
    """Add one transfer between two nodes to the fees of their providers."""
    priced = [(o, o.egress.bind(zero.asset).times(size)) for o in source.offers if o.egress]
    if not priced or source.offer is None:
        return
    label = source.offer.label
    moves = target.offer is None or target.offer.label != label
    paid = [amount for offer, amount in priced if offer is source.offer and moves]
    price = rounded_up(zero.asset, sum(paid, Fraction()))
    most = rounded_up(zero.asset, 2 * max(amount for _, amount in priced))
    known = fees.get(label, Fee(name="egress", on=label, price=zero, at_most=zero))
    fees[label] = known.model_copy(
        update={"price": known.price + price, "at_most": known.at_most + most}
    )
