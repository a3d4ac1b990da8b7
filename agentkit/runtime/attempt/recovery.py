"""Taking up attempts of which nobody heard the end: after a crash, or a lost connection."""

from __future__ import annotations

from contextlib import suppress

from agentkit.errors import (
    BadOutput,
    PaymentError,
    ProtocolBroken,
    ProviderError,
    StateError,
    SubmitTimedOut,
    Unavailable,
)
from agentkit.market.attempt import Attempt, JobStatus, Payment
from agentkit.market.carrying import carry
from agentkit.market.offer import Offer
from agentkit.market.seams import AskableRail, Fate
from agentkit.runtime.attempt.closing import Closing
from agentkit.runtime.attempt.delivery import Results
from agentkit.runtime.attempt.lanes import Lanes
from agentkit.runtime.attempt.shared import CALL_SECONDS, adapter_errors, is_retryable
from agentkit.runtime.context import RunContext
from agentkit.runtime.deadline import within
from agentkit.runtime.purchase import CheckedResult, Purchase
from agentkit.runtime.retry import again_for

FIND_PATIENCE = 10.0
"""Seconds for which a provider that can be asked is asked what became of an attempt."""


class Recovery:
    """Finds out what became of open attempts, so that nothing is bought twice."""

    def __init__(
        self, context: RunContext, lanes: Lanes, results: Results, closing: Closing
    ) -> None:
        self._context = context
        self._lanes = lanes
        self._results = results
        self._closing = closing

    async def recover(self, purchase: Purchase, attempt: Attempt) -> CheckedResult | None:
        """Return what an open attempt delivered; None once it is closed without a result.

        Raises RunPaused when its provider was paid and does not say what became of it.
        """
        try:
            return await self._recover(purchase, attempt)
        finally:
            self._lanes.free(attempt)

    async def _recover(self, purchase: Purchase, attempt: Attempt) -> CheckedResult | None:
        """Ask the provider, and go by what it says and by how it is paid."""
        offer = self._context.state.offers[attempt.terms]
        if not offer.finds:
            why = "the provider cannot be asked about it"
            await self._closing.close_without_result(attempt, offer, why)
            return None

        try:
            status = await self._find(attempt, offer)
        except ProviderError as error:
            if offer.pays != "on_delivery":
                why = f"{offer.label} cannot be asked: {error}"
                raise self._context.stop.paused(why, uncertain=True) from error
            await self._closing.close_unpaid(attempt, str(error))
            return None

        if status is None and offer.pays == "with_request":
            return await self._submit_again(purchase, offer, attempt)
        if status is None or status.state in ("failed", "cancelled"):
            await self._closing.close_unpaid(attempt, _ending(status))
            return None
        return await self._take_result(purchase, offer, attempt)

    async def _find(self, attempt: Attempt, offer: Offer) -> JobStatus | None:
        """Ask what became of an attempt, for as long as patience lasts."""
        provider = self._context.provider(attempt.provider)
        async for one in again_for(FIND_PATIENCE, is_retryable, self._context.stop.sleep):
            with one, adapter_errors(offer):
                async with within(CALL_SECONDS, lambda _: _no_answer(offer)):
                    return await self._context.stop.or_stop(provider.find(attempt))
        raise _no_answer(offer)

    async def _submit_again(
        self, purchase: Purchase, offer: Offer, attempt: Attempt
    ) -> CheckedResult | None:
        """Submit an attempt again with its own payment; None once it is closed.

        This is safe whatever became of it: both sides know it by its id, so it is the same job and
        the same payment.
        """
        rail = self._context.rail(attempt.rail)
        if isinstance(rail, AskableRail):
            # Part of what was sent may have been drawn, which must not be sent again.
            with suppress(StateError, ProviderError):
                await rail.lookup(attempt)
        try:
            payment = await self._context.resources.journal.commit(
                lambda tx: rail.reserve(tx, attempt)
            )
            await self._submit(purchase, offer, attempt, payment)
        except BadOutput as error:
            await self._closing.close_answered(attempt, offer, error)
            return None
        except (ProviderError, PaymentError) as error:
            await self._close_by_payment(offer, attempt, error)
            return None
        return await self._take_result(purchase, offer, attempt)

    async def _submit(
        self, purchase: Purchase, offer: Offer, attempt: Attempt, payment: Payment
    ) -> None:
        """Submit an attempt, for as long as patience lasts; the same one again is the same job."""
        provider = self._context.provider(attempt.provider)
        limit = purchase.node.limits.submit
        async for one in again_for(FIND_PATIENCE, is_retryable, self._context.stop.sleep):
            with one, adapter_errors(offer):
                async with within(limit, lambda s: SubmitTimedOut(s, provider=offer.label)):
                    submitting = provider.submit(purchase.task, offer, attempt, payment)
                    await self._context.stop.or_stop(submitting)

    async def _close_by_payment(
        self, offer: Offer, attempt: Attempt, error: ProviderError | PaymentError
    ) -> None:
        """Close an attempt by what became of its payment; raises RunPaused where that is open."""
        why = f"{offer.label} does not say what became of it: {error}"
        match await self._fate_of_payment(attempt):
            case "unpaid":
                await self._closing.close_unpaid(attempt, why)
            case "paid" if not is_retryable(error):
                await self._closing.close_without_result(attempt, offer, why)
            case _:
                raise self._context.stop.paused(why, uncertain=True) from error

    async def _fate_of_payment(self, attempt: Attempt) -> Fate:
        """Return what became of an attempt's payment, as far as its rail can say."""
        rail = self._context.rail(attempt.rail)
        if not isinstance(rail, AskableRail):
            return "open"
        try:
            for question in await rail.questions(attempt):
                await carry(self._context.resources.providers, rail, question)
            return await rail.lookup(attempt)
        except (StateError, ProviderError):
            return "open"

    async def _take_result(
        self, purchase: Purchase, offer: Offer, attempt: Attempt
    ) -> CheckedResult | None:
        """Wait for the result of an attempt that its provider has; None once it is closed."""
        try:
            async with self._results.time_limit(purchase, offer, attempt):
                with adapter_errors(offer):
                    result = await self._results.wait_for(offer, attempt)
        except BadOutput as error:
            await self._closing.close_answered(attempt, offer, error)
            return None
        except ProviderError as error:
            await self._closing.close_without_result(attempt, offer, str(error))
            return None
        try:
            return await self._results.check(purchase, CheckedResult(attempt, offer, result))
        except (BadOutput, ProtocolBroken):
            return None  # it is refused and closed


def _no_answer(offer: Offer) -> Unavailable:
    return Unavailable("does not say what became of it", provider=offer.label)


def _ending(status: JobStatus | None) -> str:
    """Say how an attempt ended that has no result."""
    if status is None:
        return "it never arrived"
    reason = f": {status.reason}" if status.reason else ""
    return f"the provider says {status.state}{reason}"
