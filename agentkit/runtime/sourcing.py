"""Buying one purchase: in what order providers are asked, how often, and which answer counts.

take up what an earlier process left open
-> for each offer, as often as retries allow: a delivery, perhaps hedged
-> the first that verifies is paid; of redundant ones, those that agree
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeVar

from agentkit.artifacts import Artifact
from agentkit.errors import ProviderError, RateLimited, RunPaused, Unavailable
from agentkit.graph.checks import Redundant
from agentkit.journal.run_state import RunState
from agentkit.market.attempt import Attempt, purchase_id
from agentkit.market.offer import Offer
from agentkit.runtime import hints
from agentkit.runtime.attempts import Attempts
from agentkit.runtime.context import Means
from agentkit.runtime.deadline import Deadline
from agentkit.runtime.hedging import Hedges
from agentkit.runtime.purchase import Delivery, Hopeless, Want
from agentkit.runtime.retry import again, asked_to_wait
from agentkit.runtime.verifiers import canonical

T = TypeVar("T")

COOLDOWN = 15.0
"""Seconds for which a provider node that could not be reached is tried last."""

LONGEST_WAIT = 30.0
"""Seconds that are waited for a provider that asks to be left alone; longer is the next offer."""


class Buyer:
    """Buys for one run.  `rebuy`: the user asked to buy again what is uncertain."""

    def __init__(
        self, means: Means, state: RunState, deadline: Deadline, *, rebuy: bool = False
    ) -> None:
        self._means, self._rebuy = means, rebuy
        self._attempts = Attempts(means, state, deadline, rebuy=rebuy)
        self._hedges = Hedges()
        self._cool: dict[str, float] = {}

    @property
    def stopping(self) -> asyncio.Event:
        """Set, it has nothing more bought, and leaves what can be found again."""
        return self._attempts.stopping

    def open_nothing_more(self) -> None:
        """Let what is under way come to its end, and begin nothing else: the run stops."""
        self._attempts.closing = True

    async def buy(self, want: Want) -> tuple[Artifact, ...]:
        """Return the verified outputs of a purchase, paid for and journalled.

        Raises RunPaused when it cannot go on: offers used up, outcome unknown, no funds; Hopeless
        when it never will.
        """
        check = next((c for c in want.node.verify if isinstance(c, Redundant)), None)
        if check and check.of > 1:
            return await self._redundant(want, check)
        delivery = await self._obtain(want, self._ordered(want.planned.offers), hedge=True)
        outputs = await self._attempts.settle(want, delivery)
        self._attempts.errand(
            self._attempts.cancel_others(want.purchase, "another provider was faster")
        )
        return outputs

    async def cancel(self, attempt: Attempt, why: str) -> None:
        """Stop an open attempt at its provider and close it; used when the run ends for good."""
        await self._attempts.cancel(attempt, why)

    async def unless_stopped(self, waiting: Awaitable[T]) -> T:
        """Wait for something, or raise RunPaused as soon as the run is asked to stop."""
        return await self._attempts.or_stop(waiting)

    async def sleep(self, seconds: float) -> None:
        """Wait, or raise RunPaused as soon as the run is asked to stop."""
        await self._attempts.sleep(seconds)

    async def settle_errands(self) -> None:
        """Wait for messages that are still on their way to providers."""
        await self._attempts.settle_errands()

    # -- one delivery ----------------------------------------------------------------------------

    async def _obtain(self, want: Want, offers: Iterable[Offer], *, hedge: bool) -> Delivery:
        """Return a verified delivery of a purchase, from the first provider that gives one."""
        past = self._attempts.past(want.purchase)
        for attempt in list(past.open.values()):
            delivery = await self._attempts.reattach(want, attempt)
            if delivery is not None:
                return delivery
        forgiven = past.uncertain if self._rebuy else 0
        self._check_unknown(want, forgiven)
        errors: list[ProviderError] = []
        for offer in offers:
            try:
                return await self._tried(want, offer, forgiven, hedge=hedge)
            except ProviderError as error:
                errors.append(error)
        raise self._used_up(want, errors)

    def _used_up(self, want: Want, errors: Sequence[ProviderError]) -> RunPaused | Hopeless:
        """Return what it means that every offer of a purchase ended in an error.

        That the task itself is wrong is believed only where each offer said so: one provider that
        lies must not fail a run that another could do.
        """
        told = "; ".join(str(error) for error in errors[-4:])
        if errors and all(error.of_task for error in errors):
            skip = "" if want.item is None else '; on_error="skip" leaves such rows out'
            return Hopeless(f"every provider asked says that the task is wrong: {told}{skip}")
        if want.skips and errors and not any(e.retryable or e.unknown for e in errors):
            return Hopeless(told)
        told = told or "no provider is left that was not asked"
        hint = hints.try_again_or_replan(self._attempts.run)
        return self._attempts.pause(f"no offer for {want.node.name!r} is left: {told}", hint=hint)

    async def _tried(self, want: Want, offer: Offer, forgiven: int, *, hedge: bool) -> Delivery:
        """Ask one provider as often as retries allow; raises its last error."""

        def worth(wrong: BaseException) -> bool:
            if not isinstance(wrong, ProviderError):
                return False
            self._check_unknown(want, forgiven)
            self._cool_down(offer, wrong)
            return wrong.retryable and asked_to_wait(wrong) <= LONGEST_WAIT

        async for one in again(want.node.retries, worth, self._attempts.sleep):
            with one:
                return await self._timed(want, offer, hedge=hedge)
        raise Unavailable(provider=offer.label)

    async def _timed(self, want: Want, offer: Offer, *, hedge: bool) -> Delivery:
        self._hedges.calls += 1
        delivery = await (
            self._hedged(want, offer)
            if hedge
            else self._attempts.deliver(want, offer, asyncio.Event())
        )
        if delivery.seconds:  # one that was taken up again says nothing
            self._hedges.took(want.node.name, delivery.seconds)
        return delivery

    def _ordered(self, offers: Sequence[Offer]) -> list[Offer]:
        """Return offers in the plan's order, those of nodes that were just away last."""
        now = time.monotonic()
        return sorted(offers, key=lambda offer: self._cool.get(offer.label, 0.0) > now)

    def _cool_down(self, offer: Offer, wrong: ProviderError) -> None:
        """Note that an offer's node is to be left alone."""
        if isinstance(wrong, Unavailable | RateLimited):
            self._cool[offer.label] = time.monotonic() + max(asked_to_wait(wrong), COOLDOWN)

    def _check_unknown(self, want: Want, forgiven: int) -> None:
        """Pause before buying again what may have been bought, unless the rules allow it.

        `forgiven`: how many unknown outcomes the user has looked at and asked to buy again.
        """
        past = self._attempts.past(want.purchase)
        if past.uncertain <= forgiven:
            return
        below = self._means.allowance.rebuy_below
        last = past.attempts[-1]
        small = below is not None and last.at_most < below
        if small or want.node.on_unknown == "rebuy":
            return
        raise self._attempts.pause(
            f"whether {last.provider} did {want.node.name!r} is unknown, and {last.at_most} counts"
            " as spent",
            uncertain=True,
            hint=hints.look_before_buying_again(self._attempts.run, last.provider),
        )

    # -- hedging ---------------------------------------------------------------------------------

    async def _hedged(self, want: Want, offer: Offer) -> Delivery:
        """Ask one provider, and a second one when the first takes too long; the first answer wins.

        Raises the first one's error when neither delivers.
        """
        begun = asyncio.Event()
        first = asyncio.create_task(self._attempts.deliver(want, offer, begun))
        racing = {first}
        try:
            other = await self._if_slow(want, offer, first, begun)
            if other:
                self._hedges.extra += 1
                second = self._attempts.deliver(want, other, asyncio.Event(), extra=True)
                racing.add(asyncio.create_task(second))
            async for task in _as_they_end(racing):
                if not task.cancelled() and task.exception() is None:
                    return task.result()
            return first.result()
        finally:
            await _let_go(racing)

    async def _if_slow(
        self, want: Want, offer: Offer, first: asyncio.Task[Delivery], begun: asyncio.Event
    ) -> Offer | None:
        """Return whom to ask besides, once the first is slow; None when it ends before that."""
        others = [other for other in want.planned.offers if other.label != offer.label]
        other = next(iter(self._ordered(others)), None)
        if other is None or {offer.pays, other.pays} != {"on_delivery"}:
            await asyncio.wait({first})
            return None
        waiting = asyncio.ensure_future(begun.wait())
        await asyncio.wait({first, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        started = time.monotonic()
        while not first.done():
            patience = self._hedges.patience(want.node.name)
            if patience is None:  # nothing to compare with yet: look again when there may be
                await asyncio.wait({first}, timeout=1.0)
                continue
            left = started + patience - time.monotonic()
            if left <= 0 and self._hedges.allowed():
                return other
            await asyncio.wait({first}, timeout=max(left, patience / 4, 0.01))
        return None

    # -- redundancy ------------------------------------------------------------------------------

    async def _redundant(self, want: Want, check: Redundant) -> tuple[Artifact, ...]:
        """Buy several replicas, each from another provider; pay those that agree."""
        replicas = [self._replica(want, number) for number in range(check.of)]
        fresh = deque(self._untouched(want, replicas))
        tasks = {
            asyncio.create_task(
                self._obtain(replica, chain(_taken_from(fresh), self._own(replica)), hedge=False)
            )
            for replica in replicas
        }
        deliveries: list[Delivery] = []
        agreed: list[Delivery] = []
        stopped: list[BaseException] = []
        try:
            async for task in _as_they_end(tasks):
                wrong = task.exception()
                if wrong is not None:
                    stopped.append(wrong)
                else:
                    deliveries.append(task.result())
                agreed = _agreeing(deliveries, check.k)
                if agreed:
                    break
        finally:
            await _let_go(tasks)
        if not agreed:
            raise await self._disagreed(want, check, deliveries, stopped)
        outputs = await self._attempts.settle(want, *agreed)
        for delivery in deliveries:
            if delivery not in agreed:
                await self._attempts.refuse(delivery, "it is not what the other replicas say")
        for replica in replicas:
            self._attempts.errand(
                self._attempts.cancel_others(replica.purchase, "enough replicas agree")
            )
        return outputs

    def _untouched(self, want: Want, replicas: Sequence[Want]) -> list[Offer]:
        """Return one offer of each provider node that no replica is at, after a resume either."""
        taken = {a.label for r in replicas for a in self._attempts.past(r.purchase).open.values()}
        by_label: dict[str, Offer] = {}
        for offer in self._ordered(want.planned.offers):
            by_label.setdefault(offer.label, offer)
        return [offer for label, offer in by_label.items() if label not in taken]

    def _own(self, replica: Want) -> list[Offer]:
        """Return the offers of provider nodes that a replica is at, should it have to ask again."""
        mine = {attempt.label for attempt in self._attempts.past(replica.purchase).open.values()}
        return [offer for offer in replica.planned.offers if offer.label in mine]

    def _replica(self, want: Want, number: int) -> Want:
        purchase = purchase_id(self._attempts.run, want.node.name, want.item, number)
        return replace(want, purchase=purchase)

    async def _disagreed(
        self,
        want: Want,
        check: Redundant,
        deliveries: Sequence[Delivery],
        stopped: Sequence[BaseException],
    ) -> BaseException:
        """Close what was delivered, nobody being to blame, and return why the run cannot go on."""
        for wrong in stopped:
            if isinstance(wrong, Hopeless):
                continue
            if not isinstance(wrong, RunPaused) or wrong.uncertain or wrong.mend:
                return wrong
        if self.stopping.is_set():
            pauses = (error for error in stopped if isinstance(error, RunPaused))
            return next(pauses, None) or self._attempts.pause("it was asked to stop")
        for delivery in deliveries:
            await self._attempts.refuse(delivery, "no replicas agree", blame=False)
        if not deliveries and all(isinstance(error, Hopeless) for error in stopped):
            return stopped[0]
        votes = f"{len(deliveries)} of {check.of} replicas of {want.node.name!r} came"
        why = "; ".join(str(wrong) for wrong in stopped[-2:])
        told = f"{votes}, and no {check.k} of them agree" + (f": {why}" if why else "")
        paused = any(isinstance(error, RunPaused) for error in stopped)
        return Hopeless(told) if want.skips and not paused else self._attempts.pause(told)


def _agreeing(deliveries: Sequence[Delivery], enough: int) -> list[Delivery]:
    """Return the deliveries that say what most say, if they are enough."""
    said = [tuple(map(canonical, delivery.result.outputs)) for delivery in deliveries]
    most, votes = Counter(said).most_common(1)[0] if said else ((), 0)
    return (
        [d for d, s in zip(deliveries, said, strict=True) if s == most] if votes >= enough else []
    )


def _taken_from(offers: deque[Offer]) -> Iterator[Offer]:
    """Yield offers that nobody else was given."""
    while offers:
        yield offers.popleft()


async def _as_they_end(
    tasks: set[asyncio.Task[Delivery]],
) -> AsyncIterator[asyncio.Task[Delivery]]:
    """Yield tasks in the order in which they end."""
    waiting = set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            yield task


async def _let_go(tasks: set[asyncio.Task[Delivery]]) -> None:
    """End tasks whose outcome is not wanted any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
