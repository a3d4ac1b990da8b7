"""From a graph to a plan: ask every provider, apply policies, choose, add up.  Nothing is spent."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace

from agentkit.errors import PlanError, PlanExpired
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import PaidNode
from agentkit.journal.blobs import INLINE_BYTES
from agentkit.kinds.sizes import Sizes
from agentkit.market.plan import HERE_SECONDS, Fee, Plan, PlannedNode
from agentkit.money import Money
from agentkit.planner import costs
from agentkit.planner.estimate import carried, sizes_of, spec_of
from agentkit.planner.objectives import PlanningCase, added, decide, limit_of
from agentkit.planner.offers import collect
from agentkit.planner.policy import check_patterns
from agentkit.planner.remaining import Rest
from agentkit.planner.request import Market, Wish, checked
from agentkit.planner.selection import Chosen


async def make_plan(
    graph: FrozenGraph,
    market: Market,
    wish: Wish,
    *,
    balance: Money | None = None,
    uploads: Sequence[Fee] = (),
    rest: Rest | None = None,
) -> Plan:
    """Return a plan within budget and deadline, of the `rest` of a run if one is given.

    Raises NoOffer, OverBudget (naming the limit), PastDeadline, and PlanError for a wish that
    cannot be; nothing is spent.
    """
    started = time.time()
    wish = checked(wish, market)
    if wish.policy is not None:
        check_patterns(wish.policy, market.providers)
    sizes = await asyncio.to_thread(sizes_of, graph, market.folder)
    specs = {
        node.name: spec_of(node, sizes, market.measured)
        for node in graph.nodes
        if isinstance(node, PaidNode) and not (rest and node.name in rest.done)
    }
    offered = await collect(specs, market, wish)
    if rest:
        offered = {n: replace(o, done=rest.items.get(n, 0)) for n, o in offered.items()}
    read = carried(graph, sizes)
    candidates = [
        costs.candidate(
            node.name,
            offered.get(node.name),
            [p for p in graph.parents[node.name] if not (rest and p in rest.done)],
            read[node.name],
            wish,
            here=HERE_SECONDS,
        )
        for node in graph.nodes
        if not (rest and node.name in rest.done)
    ]
    case = PlanningCase(
        graph, market, wish, offered, candidates, limit_of(wish, market, rest), rest
    )
    chosen, nodes = await asyncio.to_thread(decide, case)
    plan = await _plan(case, chosen, nodes, started=started, balance=balance, uploads=uploads)
    return plan.model_copy(update={"stays": _stays(sizes, market)})


def _stays(sizes: Sizes, market: Market) -> tuple[str, ...]:
    """Return the nodes with an output too large for the log and for every remote store."""
    most = max(INLINE_BYTES, market.remote)
    return tuple(n for n, outputs in sizes.items() if any(size.bytes > most for size in outputs))


def check_fresh(plan: Plan, market: Market) -> None:
    """Raise PlanExpired, or PlanError when the plan was made for another wallet or network."""
    if plan.wallet != market.wallet or plan.network != market.network.name:
        raise PlanError(
            f"the plan was made for wallet {plan.wallet} on {plan.network}",
            hint="make it again with `agentkit plan`",
        )
    if time.time() > plan.expires:
        raise PlanExpired


# -- the plan ------------------------------------------------------------------------------------


async def _plan(
    case: PlanningCase,
    chosen: Chosen,
    nodes: tuple[PlannedNode, ...],
    *,
    started: float,
    balance: Money | None,
    uploads: Sequence[Fee],
) -> Plan:
    """Put the decision, its fees and its totals together as a plan."""
    market, wish = case.market, case.wish
    zero = market.network.currency.zero()
    egress = costs.egress(case.candidates, nodes, zero)
    price = added((node.price for node in nodes), zero) + added((fee.price for fee in egress), zero)
    at_most = added((node.at_most for node in nodes), zero)
    return Plan(
        graph=case.graph,
        nodes=nodes,
        fees=(*egress, *await _fees(nodes, market), *uploads),
        price=price,
        at_most=at_most + added((fee.at_most for fee in egress), zero),
        eta=chosen.times.finish,
        budget=wish.budget,
        deadline=None if wish.deadline is None else started + wish.deadline,
        made=started,
        expires=min((o.expires for node in nodes for o in node.offers), default=started + 3600),
        network=market.network.name,
        wallet=market.wallet,
        balance=balance,
        bound=Money(max(0, price.units - math.floor(chosen.excess)), zero.asset),
        second=chosen.second,
        path=chosen.times.path,
        risk=wish.risk,
        objective=str(wish.objective),
    )


async def _fees(nodes: Sequence[PlannedNode], market: Market) -> list[Fee]:
    """Return what paying costs beside the prices, by rail; raises PlanError without a gas limit."""
    fees: list[Fee] = []
    for name, rail in market.rails.items():
        paid = [n for n in nodes if n.offer and n.offer.rail == name]
        offers = [node.offer for node in paid if node.offer]
        if offers:
            fees += await rail.quote(offers, [n.offer.at_most * n.items for n in paid if n.offer])
    if fees and market.allowance.gas is None and not market.network.test:
        raise PlanError(
            f"no limit for gas is set, and {market.network.name} is a real network",
            hint=f'set allowance.gas, for example "0.01 {market.network.coin.symbol}"',
        )
    return _merged(fees)


def _merged(fees: Sequence[Fee]) -> list[Fee]:
    """Return fees of the same name and coin as one row each."""
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
