"""Asking every provider what it would do each node for, and leaving out what cannot be taken."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentkit.errors import ConfigError, NoOffer, ProviderError
from agentkit.kinds.registry import bought_kind
from agentkit.market.offer import Offer, Rejection
from agentkit.market.seams import Provider
from agentkit.market.task import TaskSpec
from agentkit.money import Money
from agentkit.planner import policy as policies
from agentkit.planner.policy import Choose, name_of, stages_of
from agentkit.planner.request import Market, Wish

OFFERS_TIMEOUT = 20.0
MOST_LANES = 64
"""The most purchases that a provider is believed to work on at once."""

ABSURD = 10**12
"""An at most of so many whole coins is a mistake or a joke."""


@dataclass(frozen=True)
class Offered:
    """A node's offers as the policy has them, best first.

    `ordered`: the policy orders offers, and does not only narrow them.  `done`: how many of the
    node's purchases a run has made already.
    """

    spec: TaskSpec
    offers: tuple[Offer, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    ordered: bool = False
    done: int = 0

    @property
    def items(self) -> int:
        """How many purchases there may still be."""
        return max(1, self.spec.items - self.done)

    @property
    def likely(self) -> int:
        """How many there are expected to be."""
        return max(1, self.spec.likely - self.done)

    def left(self, at_most: Money | None) -> int:
        """Return what is left of the most that all purchases can come to, in base units."""
        return at_most.units * self.items // self.spec.items if at_most else 0


async def collect(specs: Mapping[str, TaskSpec], market: Market, wish: Wish) -> dict[str, Offered]:
    """Return the offers for every node; raises NoOffer for the first that has none.

    Nodes that every provider prices alike are asked for once.
    """
    same: dict[str, list[str]] = {}
    for name, spec in specs.items():
        key = bought_kind(spec.node).pricing_key(spec.node, spec.load)
        same.setdefault(key, []).append(name)
    firsts = [specs[names[0]] for names in same.values()]
    answers = await asyncio.gather(*(_answers(spec, market) for spec in firsts))
    found = {}
    for names, answer in zip(same.values(), answers, strict=True):
        for name in names:
            found[name] = _offered(specs[name], answer, market, wish)
    return {name: found[name] for name in specs}


Answer = Sequence[Offer] | Rejection


async def _answers(spec: TaskSpec, market: Market) -> list[Answer]:
    return list(await asyncio.gather(*(_ask(p, spec) for p in market.providers.values())))


async def _ask(provider: Provider, spec: TaskSpec) -> Answer:
    try:
        async with asyncio.timeout(OFFERS_TIMEOUT):
            return await provider.offers(spec)
    except TimeoutError:
        return Rejection(label=provider.name, reason=f"no answer in {OFFERS_TIMEOUT:.0f} s")
    except (ProviderError, ConfigError) as error:
        return Rejection(label=provider.name, reason=str(error).removeprefix(f"{provider.name}: "))


def _offered(
    spec: TaskSpec,
    answers: Sequence[Answer],
    market: Market,
    wish: Wish,
) -> Offered:
    """Return the offers that fit and that the policy keeps, best first; raises NoOffer."""
    rejected = [answer for answer in answers if isinstance(answer, Rejection)]
    offers: list[Offer] = []
    for offer in (o for answer in answers if not isinstance(answer, Rejection) for o in answer):
        wrong = unfit(offer, spec, market)
        if wrong:
            rejected.append(Rejection(label=offer.label, reason=wrong))
        else:
            offers.append(_as_believed(offer, spec, market))
    base = policies.fastest if wish.weight == 1 else policies.cheapest
    kept = base(offers)
    for stage in stages_of(wish.policy) if wish.policy else ():
        before, kept = kept, stage(list(kept))
        there = set(map(id, kept))
        gone = [offer for offer in before if id(offer) not in there]
        rejected += [Rejection(label=o.label, reason=f"policy {name_of(stage)}") for o in gone]
    if not kept:
        raise NoOffer(spec.node.name, [(r.label, r.reason) for r in rejected])
    ordered = wish.policy is not None and _gives_order(wish.policy, kept)
    return Offered(spec, tuple(kept), tuple(rejected), ordered)


def _gives_order(policy: Choose, offers: Sequence[Offer]) -> bool:
    """Return whether a policy orders offers: one that only narrows them leaves any order alone.

    Two orders are tried, since `cheapest` leaves offers as they are that are ordered by price.
    """
    for base in (policies.cheapest, policies.fastest):
        before = base(list(offers))
        after = [id(offer) for offer in policy(list(before))]
        if after != [id(offer) for offer in before if id(offer) in after]:
            return True
    return False


def _as_believed(offer: Offer, spec: TaskSpec, market: Market) -> Offer:
    """Return an offer with what we know better than whoever made it, and as it is paid."""
    known = {
        "node": spec.node.name,
        "reputation": market.reputations.get(offer.label, 1.0),
        "lanes": min(offer.lanes, MOST_LANES),
    }
    return market.pay(offer.model_copy(update=known))


def unfit(offer: Offer, spec: TaskSpec, market: Market) -> str:
    """Return why an offer cannot be taken as it is, or "": nothing a provider says is trusted."""
    limit = market.allowance.per_task
    absurd = ABSURD * 10**offer.at_most.asset.decimals
    fee = offer.egress
    checks = (
        (offer.price.asset != market.network.currency, f"priced in {offer.price.asset.id}"),
        (offer.at_most.asset != offer.price.asset, f"at most is in {offer.at_most.asset.id}"),
        (fee is not None and fee.amount.asset != offer.price.asset, "egress in another asset"),
        (offer.at_most.units < offer.price.units, "at most is below the price"),
        (offer.at_most.units >= absurd, f"its at most of {offer.at_most} is absurd"),
        (not math.isfinite(offer.eta) or offer.eta < 0, f"its ETA is {offer.eta}"),
        (offer.lanes < 1, f"it works on {offer.lanes} purchases at once"),
        (not 0 <= offer.bandwidth < math.inf, f"its bandwidth is {offer.bandwidth}"),
        (not offer.expires > time.time(), "already expired"),
        (offer.rail not in market.rails, f"is paid by {offer.rail!r}, which is not set up"),
        (not market.allowance.permits(offer.provider), "not among allowance.providers"),
        (not market.allowance.permits_payee(offer.payee), "pays nobody of allowance.payees"),
        (limit is not None and offer.at_most.units > limit.units, f"above per_task of {limit}"),
        (spec.node.privacy == "tee" and "tee" not in offer.evidence, "does not attest a TEE"),
    )
    reasons = (reason for wrong, reason in checks if wrong)
    return next(reasons, "") or bought_kind(spec.node).unfit(spec.node, spec.load, offer)
