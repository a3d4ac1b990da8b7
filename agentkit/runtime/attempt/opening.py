"""Opening an attempt: its offer is still valid, its money is set aside, it is on record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from agentkit.errors import (
    BadAmount,
    InsufficientFunds,
    OfferExpired,
    OffersTimedOut,
    OverBudget,
    PaymentError,
    StateError,
)
from agentkit.journal.events import AttemptOpened
from agentkit.market.attempt import Attempt, Payment
from agentkit.market.offer import Offer, charge
from agentkit.market.seams import Event, Transaction, Wanted
from agentkit.market.task import Task
from agentkit.money import Money
from agentkit.runtime import hints
from agentkit.runtime.attempt.closing import Closing
from agentkit.runtime.attempt.funding import FUNDINGS, Funding
from agentkit.runtime.attempt.shared import adapter_errors
from agentkit.runtime.context import RunContext
from agentkit.runtime.deadline import within
from agentkit.runtime.purchase import Purchase

OFFERS_SECONDS = 20.0
"""Seconds in which a provider repeats an offer, unless the node says otherwise."""


class Opening:
    """Opens attempts of one run.

    The reservation in the budget, the rail's payment and the record of the attempt are one
    transaction, which is durable before anything is sent.
    """

    def __init__(self, context: RunContext, funding: Funding, closing: Closing) -> None:
        self._context = context
        self._funding = funding
        self._closing = closing

    async def current(self, purchase: Purchase, offer: Offer) -> Offer:
        """Return the offer, or after its expiry the provider's new one on the same terms.

        Never for more than the plan allows; raises OfferExpired when the terms have changed.
        """
        if time.time() < offer.expires or purchase.planned.spec is None:
            return offer
        for new in await self._ask_again(purchase, offer):
            if new.terms == offer.terms:
                return new.model_copy(update={"at_most": min(new.at_most, offer.at_most)})
        raise OfferExpired("the price has changed since the plan was made", provider=offer.label)

    async def open(
        self, purchase: Purchase, offer: Offer, *, extra: bool
    ) -> tuple[Attempt, Payment]:
        """Open the purchase's next attempt, and return it with what pays for it.

        `extra`: it is one more than the plan foresaw, and leaves the others what they need.  Raises
        ProviderError when the offer does not hold, RunPaused when the run has to stop.
        """
        attempt = self._next_attempt(purchase, offer)
        payment = await self._reserve_and_record(purchase, offer, attempt, extra=extra)
        await self._seal_before_pay(attempt)
        return attempt, payment

    def _next_attempt(self, purchase: Purchase, offer: Offer) -> Attempt:
        """Return the purchase's next attempt; raises OfferExpired if the offer is too small."""
        attempt = Attempt.at(
            purchase.id,
            len(self._context.state.attempts_at(purchase.id).attempts),
            offer,
            run=self._context.run,
            item=purchase.item,
            task=purchase.task.digest,
            at_most=_at_most(purchase.task, offer),
        )
        if attempt.at_most > offer.at_most:
            raise OfferExpired(
                f"the task can come to {attempt.at_most}, above the offer's {offer.at_most}",
                provider=offer.label,
            )
        return attempt

    async def _reserve_and_record(
        self, purchase: Purchase, offer: Offer, attempt: Attempt, *, extra: bool
    ) -> Payment:
        """Commit the attempt, funding its rail first where it has too little."""
        self._check_going()
        spare = self._needed_by_others() if extra else 0
        try:
            try:
                return await self._commit(attempt, spare)
            except InsufficientFunds:
                await self._confirm(purchase, offer)
                return await self._commit_funded(purchase, offer, attempt, spare)
        except (PaymentError, OverBudget) as error:
            raise self._context.stop.paused(
                f"{offer.label} cannot be paid: {error}",
                hint=hints.after(error, self._context.run),
            ) from error

    def _check_going(self) -> None:
        """Raise RunPaused unless a new attempt may start."""
        self._context.stop.check()
        if self._context.deadline.passed:
            hint = hints.replan(self._context.run)
            raise self._context.stop.paused("its deadline has passed", hint=hint)

    async def _commit(self, attempt: Attempt, spare: int) -> Payment:
        """Reserve and record the attempt in one transaction; returns what pays for it."""
        rail = self._context.rail(attempt.rail)

        def work(tx: Transaction) -> tuple[list[Event], Payment]:
            self._reserve(tx, attempt, spare)
            payment = rail.reserve(tx, attempt)
            return [AttemptOpened(attempt=attempt)], payment

        return await self._context.log.commit(work)

    async def _commit_funded(
        self, purchase: Purchase, offer: Offer, attempt: Attempt, spare: int
    ) -> Payment:
        """Fund the rail until the attempt can be reserved, then commit it.

        It can take more than one round: a payee may have to be asked first what we promised it, or
        another process used what was put in place.
        """
        wanted = Wanted(attempt, lambda tx: self._reserve(tx, attempt, spare))
        async with self._funding.lock(offer):
            for _ in range(FUNDINGS):
                with suppress(InsufficientFunds):
                    return await self._commit(attempt, spare)
                await self._funding.fund(purchase, offer, wanted, attempt.at_most)
            return await self._commit(attempt, spare)

    def _reserve(self, tx: Transaction, attempt: Attempt, spare: int) -> None:
        """Set the attempt's at most aside once, under a further hold if the first is used up."""
        ledger = self._context.ledger
        if not ledger.is_reserved(tx, attempt):
            self._hold_more(tx, attempt, spare)
        ledger.reserve(tx, attempt)

    def _hold_more(self, tx: Transaction, attempt: Attempt, spare: int) -> None:
        """Extend the run's hold by what is missing, if the budget has room; raises OverBudget.

        Without a budget, the plan's worst case is all that the user agreed to.  What is uncertain
        is bought again within the hold, unless the user asked for it with `rebuy`.  `spare` counts
        the units that planned attempts still need of the hold.
        """
        ledger = self._context.ledger
        state = self._context.state
        budget = state.planned.budget

        left = ledger.left(tx, self._context.run)
        left_units = left.units if left else 0
        missing = attempt.at_most.units + spare - left_units
        if missing <= 0:
            return

        bought_again = state.attempts_at(attempt.purchase).uncertain > 0
        if not self._context.rebuy and (budget is None or bought_again):
            if spare:
                raise OverBudget("hold", attempt.at_most, left or attempt.at_most.asset.zero())
            return  # the reservation itself says that the hold is too small
        ledger.hold(tx, self._context.run, Money(missing, attempt.at_most.asset), budget)

    def _needed_by_others(self) -> int:
        """Return the units of the hold that planned attempts still need."""
        state = self._context.state
        under_way = sum(attempt.at_most.units for attempt in state.unfinished)
        return max(0, state.rest - under_way)

    async def _confirm(self, purchase: Purchase, offer: Offer) -> None:
        """Ask for the offer again before money is locked up for its provider node."""
        if purchase.planned.spec is None:
            return
        offers = await self._ask_again(purchase, offer)
        if all(new.terms != offer.terms for new in offers):
            raise OfferExpired("it no longer offers these terms", provider=offer.label)

    async def _ask_again(self, purchase: Purchase, offer: Offer) -> Sequence[Offer]:
        """Return what the offer's provider offers now, paid by the same rail where it can be."""
        spec = purchase.planned.spec
        assert spec is not None  # a node with offers was priced
        seconds = purchase.node.limits.offers or OFFERS_SECONDS
        with adapter_errors(offer):
            async with within(seconds, lambda s: OffersTimedOut(s, provider=offer.label)):
                offers = await self._context.provider(offer.provider).offers(spec)
                return [
                    new.paid_by(offer.rail) if offer.rail in new.rails else new for new in offers
                ]

    async def _seal_before_pay(self, attempt: Attempt) -> None:
        """Wait until the log is as safe as the settings ask before a purchase of this size."""
        try:
            await self._context.resources.before_pay(attempt.at_most)
        except StateError as error:
            await self._closing.close_unpaid(attempt, f"it was not sent: {error}")
            raise self._context.stop.paused(
                f"the log is not on Arweave before a purchase: {error}",
                hint=hints.after(error, self._context.run),
            ) from error


def _at_most(task: Task, offer: Offer) -> Money:
    """Return the most that a task can come to under an offer; raises OfferExpired."""
    try:
        return charge(offer.at_most.asset, offer.rates, offer.most(task.load))
    except BadAmount as error:
        raise OfferExpired(str(error), provider=offer.label) from error
