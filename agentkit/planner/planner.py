"""From a graph to a plan: ask every provider, apply policies, choose, add up.  Nothing is spent."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentkit.errors import (
    ConfigError,
    NoOffer,
    OverBudget,
    PlanError,
    PlanExpired,
    ProviderError,
)
from agentkit.graph.frozen import FrozenGraph
from agentkit.market.allowance import Allowance
from agentkit.market.chain import Network
from agentkit.market.offer import Offer, Rejection
from agentkit.market.plan import HERE_SECONDS, Fee, Plan, PlannedNode
from agentkit.market.seams import Provider, Rail
from agentkit.market.task import TaskSpec
from agentkit.money import Money
from agentkit.planner import policy as policies
from agentkit.planner.estimate import PAID, sizes_of, spec_of
from agentkit.planner.policy import Choose, name_of
from agentkit.planner.solver import Candidate, longest_path, solve

OFFERS_TIMEOUT = 20.0
MOST_ALTERNATES = 3


@dataclass(frozen=True)
class Market:
    """Who can be asked and how they can be paid."""

    network: Network
    providers: Mapping[str, Provider]
    rails: Mapping[str, Rail]
    allowance: Allowance
    wallet: str
    folder: Path
    reputations: Mapping[str, float] = field(default_factory=dict)
    """The share of this agent's attempts that each provider node delivered as asked."""
    pay: Callable[[Offer], Offer] = lambda offer: offer
    """Which of the ways of paying that a provider takes is used for an offer."""


@dataclass(frozen=True)
class Wish:
    """What a plan has to satisfy; `deadline` in seconds from now."""

    budget: Money | None = None
    deadline: float | None = None
    policy: Choose | None = None
    objective: str = "cost"


@dataclass(frozen=True)
class _Offered:
    spec: TaskSpec
    offers: tuple[Offer, ...] = ()
    rejected: tuple[Rejection, ...] = ()


async def make_plan(
    graph: FrozenGraph,
    market: Market,
    wish: Wish,
    *,
    balance: Money | None = None,
    uploads: Sequence[Fee] = (),
) -> Plan:
    """Return a plan within budget and deadline.

    Raises NoOffer, OverBudget (naming the limit), PastDeadline.
    """
    started = time.time()
    if wish.deadline is not None and not wish.deadline > 0:
        raise PlanError("the deadline is in the past", hint="set a deadline that lies ahead")
    sizes = await asyncio.to_thread(sizes_of, graph, market.folder)
    specs = {node.name: spec_of(node, sizes) for node in graph.nodes if isinstance(node, PAID)}
    offered = await _collect(specs, market, wish)
    candidates = [
        Candidate(
            name=node.name,
            offers=offered[node.name].offers if node.name in offered else (),
            parents=graph.parents[node.name],
            items=specs[node.name].items if node.name in specs else 1,
            eta=HERE_SECONDS,
        )
        for node in graph.nodes
    ]
    chosen = solve(candidates, wish.deadline)
    zero = market.network.currency.zero()
    nodes = tuple(_place(node.name, offered.get(node.name), chosen, market) for node in graph.nodes)
    nodes = _within(nodes, wish.budget, market)
    finish, _ = longest_path(candidates, chosen)
    return Plan(
        graph=graph,
        nodes=nodes,
        fees=(*await _fees(nodes, market), *uploads),
        price=_sum((node.price for node in nodes), zero),
        at_most=_sum((node.at_most for node in nodes), zero),
        eta=finish,
        budget=wish.budget,
        deadline=None if wish.deadline is None else started + wish.deadline,
        made=started,
        expires=min((o.expires for node in nodes for o in node.offers), default=started + 3600),
        network=market.network.name,
        wallet=market.wallet,
        balance=balance,
    )


def check_fresh(plan: Plan, market: Market) -> None:
    """Raise PlanExpired, or PlanError when the plan was made for another wallet or network."""
    if plan.wallet != market.wallet or plan.network != market.network.name:
        raise PlanError(
            f"the plan was made for wallet {plan.wallet} on {plan.network}",
            hint="make it again with `agentkit plan`",
        )
    if time.time() > plan.expires:
        raise PlanExpired


# -- offers --------------------------------------------------------------------------------------


async def _collect(
    specs: Mapping[str, TaskSpec], market: Market, wish: Wish
) -> dict[str, _Offered]:
    found = await asyncio.gather(*(_offers_for(spec, market, wish) for spec in specs.values()))
    return dict(zip(specs, found, strict=True))


async def _offers_for(spec: TaskSpec, market: Market, wish: Wish) -> _Offered:
    answers = await asyncio.gather(*(_ask(p, spec) for p in market.providers.values()))
    rejected = [answer for answer in answers if isinstance(answer, Rejection)]
    offers: list[Offer] = []
    for offer in (o for answer in answers if not isinstance(answer, Rejection) for o in answer):
        wrong = unfit(offer, spec, market)
        if wrong:
            rejected.append(Rejection(label=offer.label, reason=wrong))
        else:
            reputation = market.reputations.get(offer.label, 1.0)
            paid = market.pay(offer.model_copy(update={"reputation": reputation}))
            offers.append(paid)
    offers, dropped = _apply(offers, wish)
    if not offers:
        raise NoOffer(spec.node.name, [(r.label, r.reason) for r in (*rejected, *dropped)])
    return _Offered(spec, tuple(offers), (*rejected, *dropped))


async def _ask(provider: Provider, spec: TaskSpec) -> Sequence[Offer] | Rejection:
    try:
        async with asyncio.timeout(OFFERS_TIMEOUT):
            return await provider.offers(spec)
    except TimeoutError:
        return Rejection(label=provider.name, reason=f"no answer in {OFFERS_TIMEOUT:.0f} s")
    except (ProviderError, ConfigError) as wrong:
        return Rejection(label=provider.name, reason=str(wrong).removeprefix(f"{provider.name}: "))


def unfit(offer: Offer, spec: TaskSpec, market: Market) -> str:
    """Return why an offer cannot be taken as it is, or "": nothing a provider says is trusted."""
    limit = market.allowance.per_task
    checks = (
        (offer.price.asset != market.network.currency, f"priced in {offer.price.asset.id}"),
        (offer.at_most < offer.price, "at most is below the price"),
        (not math.isfinite(offer.eta) or offer.eta < 0, f"its ETA is {offer.eta}"),
        (offer.expires <= time.time(), "already expired"),
        (offer.rail not in market.rails, f"is paid by {offer.rail!r}, which is not set up"),
        (not market.allowance.permits(offer.provider), "not among allowance.providers"),
        (not market.allowance.permits_payee(offer.payee), "pays nobody of allowance.payees"),
        (limit is not None and offer.at_most.units > limit.units, f"above per_task of {limit}"),
        (spec.node.privacy == "tee" and "tee" not in offer.evidence, "does not attest a TEE"),
    )
    return next((reason for wrong, reason in checks if wrong), "")


def _apply(offers: list[Offer], wish: Wish) -> tuple[list[Offer], list[Rejection]]:
    base = policies.fastest if wish.objective == "time" else policies.cheapest
    ordered = base(offers)
    kept = wish.policy(ordered) if wish.policy else ordered
    name = name_of(wish.policy) if wish.policy else ""
    gone = [offer for offer in ordered if offer not in kept]
    return kept, [Rejection(label=offer.label, reason=f"policy {name}") for offer in gone]


# -- amounts -------------------------------------------------------------------------------------


def _place(
    name: str, offered: _Offered | None, chosen: Mapping[str, Offer], market: Market
) -> PlannedNode:
    if offered is None:
        return PlannedNode(name=name)
    offer = chosen[name]
    replicas = offered.spec.replicas
    most = MOST_ALTERNATES + replicas - 1
    others = tuple(o for o in offered.offers if o.terms != offer.terms)[:most]
    if len({o.label for o in (offer, *others)}) < replicas:
        told = [(r.label, r.reason) for r in offered.rejected]
        raise NoOffer(name, [("redundancy", _too_few(offered, replicas)), *told])
    return PlannedNode(
        name=name,
        spec=offered.spec,
        offer=offer,
        alternates=others,
        at_most=at_most(offered.spec, (offer, *others), market.allowance),
        rejected=offered.rejected,
    )


def _too_few(offered: _Offered, replicas: int) -> str:
    return f"{replicas} provider nodes are needed, and {len(offered.offers)} made an offer"


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


def _within(
    nodes: tuple[PlannedNode, ...], budget: Money | None, market: Market
) -> tuple[PlannedNode, ...]:
    """Drop dear alternates until the worst case fits the limits; raises OverBudget."""
    limits = {"budget": budget, "per_run": market.allowance.per_run}
    named = {name: limit for name, limit in limits.items() if limit is not None}
    if not named or not nodes:
        return nodes
    name, limit = min(named.items(), key=lambda item: item[1].units)
    zero = limit.asset.zero()
    while (total := _sum((node.at_most for node in nodes), zero)) > limit:
        costs = [(_saved_without_dearest(node, market), n) for n, node in enumerate(nodes)]
        saved, position = max(costs, key=lambda cost: cost[0])
        if not saved:
            raise OverBudget(name, total, limit)
        cut = _without_dearest(nodes[position], market)
        nodes = (*nodes[:position], cut, *nodes[position + 1 :])
    return nodes


def _saved_without_dearest(node: PlannedNode, market: Market) -> int:
    cut = _without_dearest(node, market)
    return node.at_most.units - cut.at_most.units if node.at_most and cut.at_most else 0


def _without_dearest(node: PlannedNode, market: Market) -> PlannedNode:
    if node.spec is None or node.offer is None or len(node.alternates) < node.spec.replicas:
        return node
    dearest = max(node.alternates, key=lambda offer: offer.at_most.units)
    rest = tuple(offer for offer in node.alternates if offer is not dearest)
    too_dear = Rejection(label=dearest.label, reason="as an alternate it would break the budget")
    return node.model_copy(
        update={
            "alternates": rest,
            "at_most": at_most(node.spec, (node.offer, *rest), market.allowance),
            "rejected": (*node.rejected, too_dear),
        }
    )


async def _fees(nodes: Sequence[PlannedNode], market: Market) -> list[Fee]:
    fees: list[Fee] = []
    for name, rail in market.rails.items():
        paid = [n for n in nodes if n.offer and n.offer.rail == name]
        offers = [node.offer for node in paid if node.offer]
        if offers:
            fees += await rail.quote(offers, [n.offer.at_most * n.items for n in paid if n.offer])
    if fees and market.allowance.gas is None and not market.network.test:
        raise PlanError(
            f"no limit for gas is set, and {market.network.name} is a real network",
            hint='set allowance.gas, for example "0.01 ETH"',
        )
    return _merged(fees)


def _merged(fees: Sequence[Fee]) -> list[Fee]:
    merged: dict[tuple[str, str], Fee] = {}
    for fee in fees:
        before = merged.get((fee.name, fee.price.asset.id))
        merged[fee.name, fee.price.asset.id] = (
            fee.model_copy(
                update={
                    "on": f"{before.on}, {fee.on}",
                    "price": before.price + fee.price,
                    "at_most": before.at_most + fee.at_most,
                }
            )
            if before
            else fee
        )
    return list(merged.values())


def _sum(amounts: Iterable[Money | None], zero: Money) -> Money:
    return Money(sum(zero.same(amount) for amount in amounts if amount), zero.asset)
