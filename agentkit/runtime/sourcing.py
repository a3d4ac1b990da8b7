"""Sourcing one purchase: in what order providers are asked, how often, and which answer counts.

Offers are tried in the plan's order, each as often as the node's retries allow.  Hedging and
redundancy ask several providers at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from agentkit.artifacts import Artifact
from agentkit.errors import ProviderError, RateLimited, RunPaused, Unavailable
from agentkit.graph.checks import Redundant
from agentkit.market.offer import Offer
from agentkit.runtime import hints
from agentkit.runtime.attempt.attempts import Attempts
from agentkit.runtime.context import RunContext
from agentkit.runtime.hedging import Hedges, race
from agentkit.runtime.purchase import CheckedResult, Hopeless, Purchase
from agentkit.runtime.retry import again, asked_to_wait
from agentkit.runtime.tasks import as_they_end, cancel_and_wait
from agentkit.runtime.verifiers import canonical

COOLDOWN = 15.0
"""Seconds for which a provider node that could not be reached is tried last."""

LONGEST_WAIT = 30.0
"""Seconds that are waited for a provider that asks to be left alone; longer is the next offer."""


class Sourcing:
    """Finds a provider for each purchase of one run, and pays the answer that counts."""

    def __init__(self, context: RunContext, attempts: Attempts) -> None:
        self._context, self._attempts = context, attempts
        self._hedges = Hedges()
        self._cool_until: dict[str, float] = {}

    async def buy(self, purchase: Purchase) -> tuple[Artifact, ...]:
        """Return the checked outputs of a purchase, paid for and journalled.

        Raises RunPaused when the run cannot go on (offers used up, outcome unknown, no funds),
        Hopeless when the purchase never can succeed.
        """
        redundant = next((c for c in purchase.node.verify if isinstance(c, Redundant)), None)
        if redundant is not None and redundant.of > 1:
            return await self._buy_replicas(purchase, redundant)
        offers = self._in_order(purchase.planned.offers)
        delivery = await self._try_offers(purchase, offers, hedge=True)
        outputs = await self._attempts.settle(purchase, [delivery])
        self._cancel_others(purchase, "another provider was faster")
        return outputs

    # -- one delivery ----------------------------------------------------------------------------

    async def _try_offers(
        self, purchase: Purchase, offers: Iterable[Offer], *, hedge: bool
    ) -> CheckedResult:
        """Return the first checked delivery: of an attempt that is open already, or of an offer."""
        earlier = self._context.state.attempts_at(purchase.id)
        for attempt in list(earlier.open.values()):
            delivery = await self._attempts.recover(purchase, attempt)
            if delivery is not None:
                return delivery

        # With rebuy, the user has looked at those that are uncertain by now; later ones count.
        forgiven = earlier.uncertain if self._context.rebuy else 0
        self._check_uncertain(purchase, forgiven)
        errors: list[ProviderError] = []
        for offer in offers:
            try:
                async for one in again(
                    purchase.node.retries,
                    lambda error: self._is_worth_retrying(error, purchase, offer, forgiven),  # noqa: B023
                    self._context.stop.sleep,
                ):
                    with one:
                        return await self._ask(purchase, offer, hedge=hedge)
            except ProviderError as error:
                errors.append(error)
        raise self._no_offer_left(purchase, errors)

    def _is_worth_retrying(
        self, error: BaseException, purchase: Purchase, offer: Offer, forgiven: int
    ) -> bool:
        """Return whether to ask the same offer again; raises RunPaused where that may buy twice."""
        if not isinstance(error, ProviderError):
            return False
        self._check_uncertain(purchase, forgiven)
        if isinstance(error, Unavailable | RateLimited):
            pause = max(asked_to_wait(error), COOLDOWN)
            self._cool_until[offer.label] = time.monotonic() + pause
        return error.retryable and asked_to_wait(error) <= LONGEST_WAIT

    async def _ask(self, purchase: Purchase, offer: Offer, *, hedge: bool) -> CheckedResult:
        """Ask one offer, with a second one as a hedge against a slow answer."""
        self._hedges.calls += 1
        submitting = asyncio.Event()
        asking = self._attempts.deliver(purchase, offer, submitting)
        if hedge:
            rival = self._hedge_of(purchase, offer)
            delivery = await race(self._hedges, purchase.node.name, asking, submitting, rival)
        else:
            delivery = await asking
        if delivery.seconds:  # one that was recovered says nothing about how long a call takes
            self._hedges.took(purchase.node.name, delivery.seconds)
        return delivery

    def _hedge_of(
        self, purchase: Purchase, offer: Offer
    ) -> Callable[[], Coroutine[Any, Any, CheckedResult]] | None:
        """Return what asks another provider node besides, None where there is no such.

        Only where both are paid on delivery: the slower of two that were paid with the request
        would be paid for nothing.
        """
        others = [other for other in purchase.planned.offers if other.label != offer.label]
        other = next(iter(self._in_order(others)), None)
        if other is None or {offer.pays, other.pays} != {"on_delivery"}:
            return None
        return lambda: self._attempts.deliver(purchase, other, asyncio.Event(), extra=True)

    def _in_order(self, offers: Sequence[Offer]) -> list[Offer]:
        """Return offers in the plan's order, those of nodes that did not answer lately last."""
        now = time.monotonic()
        return sorted(offers, key=lambda offer: self._cool_until.get(offer.label, 0.0) > now)

    def _check_uncertain(self, purchase: Purchase, forgiven: int) -> None:
        """Raise RunPaused before what may have been bought is bought again, unless rules allow it.

        `forgiven`: how many uncertain attempts the user has looked at and asked to buy again.
        """
        earlier = self._context.state.attempts_at(purchase.id)
        if earlier.uncertain <= forgiven or purchase.node.on_unknown == "rebuy":
            return
        last = earlier.attempts[-1]
        below = self._context.resources.allowance.rebuy_below
        if below is not None and last.at_most < below:
            return
        because = f" ({earlier.why})" if earlier.why else ""
        raise self._context.stop.paused(
            f"whether {last.provider} did {purchase.node.name!r} is unknown{because}, and"
            f" {last.at_most} counts as spent",
            uncertain=True,
            hint=hints.look_before_buying_again(self._context.run, last.provider),
        )

    def _no_offer_left(
        self, purchase: Purchase, errors: Sequence[ProviderError]
    ) -> RunPaused | Hopeless:
        """Return what it means that every offer of a purchase ended in an error.

        That the task itself is wrong is believed only where each provider said so: one that lies
        must not fail a run that another could do.
        """
        told = "; ".join(str(error) for error in errors[-4:])
        if errors and all(error.of_task for error in errors):
            skip = "" if purchase.item is None else '; on_error="skip" leaves such rows out'
            return Hopeless(f"every provider asked says that the task is wrong: {told}{skip}")
        may_pass = any(error.retryable or error.unknown for error in errors)
        if purchase.skips and errors and not may_pass:
            return Hopeless(told)
        told = told or "no provider is left that was not asked"
        return self._context.stop.paused(
            f"no offer for {purchase.node.name!r} is left: {told}",
            hint=hints.after_offers(errors, self._context.run),
        )

    def _cancel_others(self, purchase: Purchase, why: str) -> None:
        """Cancel, beside the run, what is still open of a purchase that was delivered."""
        self._attempts.errands.start(self._attempts.closing.cancel_all(purchase.id, why))

    # -- redundancy ------------------------------------------------------------------------------

    async def _buy_replicas(self, purchase: Purchase, check: Redundant) -> tuple[Artifact, ...]:
        """Buy several replicas, each from another provider node, and pay those that agree."""
        replicas = [purchase.replica(self._context.run, number) for number in range(check.of)]
        # A replica takes the next unused node; its own again only when it has to ask once more.
        unused = deque(self._unused_nodes(purchase, replicas))
        tasks = {
            asyncio.create_task(
                self._try_offers(
                    replica, chain(_take_from(unused), self._own_nodes(replica)), hedge=False
                )
            )
            for replica in replicas
        }
        deliveries: list[CheckedResult] = []
        agreeing: list[CheckedResult] = []
        errors: list[BaseException] = []
        try:
            async for task in as_they_end(tasks):
                error = task.exception()
                if error is not None:
                    errors.append(error)
                else:
                    deliveries.append(task.result())
                agreeing = _agreeing(deliveries, check.k)
                if agreeing:
                    break
        finally:
            await cancel_and_wait(tasks)

        if not agreeing:
            raise await self._disagreed(purchase, check, deliveries, errors)
        outputs = await self._attempts.settle(purchase, agreeing)
        for delivery in deliveries:
            if delivery not in agreeing:
                why = "it is not what the other replicas say"
                await self._attempts.closing.refuse(delivery, why)
        for replica in replicas:
            self._cancel_others(replica, "enough replicas agree")
        return outputs

    def _unused_nodes(self, purchase: Purchase, replicas: Sequence[Purchase]) -> list[Offer]:
        """Return one offer of each provider node at which no replica has an open attempt."""
        used = {label for replica in replicas for label in self._open_at(replica)}
        by_label: dict[str, Offer] = {}
        for offer in self._in_order(purchase.planned.offers):
            by_label.setdefault(offer.label, offer)
        return [offer for label, offer in by_label.items() if label not in used]

    def _own_nodes(self, replica: Purchase) -> list[Offer]:
        """Return the offers of provider nodes at which a replica has an open attempt."""
        own = self._open_at(replica)
        return [offer for offer in replica.planned.offers if offer.label in own]

    def _open_at(self, replica: Purchase) -> set[str]:
        attempts = self._context.state.attempts_at(replica.id)
        return {attempt.label for attempt in attempts.open.values()}

    async def _disagreed(
        self,
        purchase: Purchase,
        check: Redundant,
        deliveries: Sequence[CheckedResult],
        errors: Sequence[BaseException],
    ) -> BaseException:
        """Return why replicas did not come to enough that agree; what was delivered is closed.

        Nobody is to blame: with two answers that differ, either may be the right one.
        """
        for error in errors:
            if _has_to_be_raised(error):
                return error
        if self._context.stop.is_set:
            pauses = (error for error in errors if isinstance(error, RunPaused))
            return next(pauses, None) or self._context.stop.paused("it was asked to stop")

        for delivery in deliveries:
            await self._attempts.closing.refuse(delivery, "no replicas agree", blame=False)
        if not deliveries and all(isinstance(error, Hopeless) for error in errors):
            return errors[0]

        told = (
            f"{len(deliveries)} of {check.of} replicas of {purchase.node.name!r} came, and no"
            f" {check.k} of them agree"
        )
        reasons = "; ".join(str(error) for error in errors[-2:])
        if reasons:
            told = f"{told}: {reasons}"
        paused = any(isinstance(error, RunPaused) for error in errors)
        if purchase.skips and not paused:
            return Hopeless(told)
        return self._context.stop.paused(told)


def _has_to_be_raised(error: BaseException) -> bool:
    """Return whether a replica's error ends the purchase, whatever the others say.

    Offers that are used up or a task that cannot be done concern that replica alone.
    """
    if isinstance(error, Hopeless):
        return False
    return not isinstance(error, RunPaused) or error.uncertain or bool(error.mend)


def _agreeing(deliveries: Sequence[CheckedResult], enough: int) -> list[CheckedResult]:
    """Return the deliveries with the most common outputs, or none if they are fewer than enough."""
    outputs = [tuple(map(canonical, delivery.result.outputs)) for delivery in deliveries]
    if not outputs:
        return []
    most_common, votes = Counter(outputs).most_common(1)[0]
    if votes < enough:
        return []
    return [d for d, given in zip(deliveries, outputs, strict=True) if given == most_common]


def _take_from(offers: deque[Offer]) -> Iterator[Offer]:
    """Yield offers of a shared queue; each goes to one taker only."""
    while offers:
        yield offers.popleft()
