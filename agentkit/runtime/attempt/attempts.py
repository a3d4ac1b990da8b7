"""The life of an attempt, from an offer to a payment.

open (durable) -> submit -> result -> check -> Delivery
settle: pay and record in one transaction        close: unpaid, refused or uncertain
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from agentkit.artifacts import Artifact
from agentkit.errors import BadOutput, ProviderError, SubmitTimedOut, Unavailable
from agentkit.market.attempt import Attempt
from agentkit.market.offer import Offer
from agentkit.runtime.attempt.closing import Closing
from agentkit.runtime.attempt.delivery import Results
from agentkit.runtime.attempt.funding import Funding
from agentkit.runtime.attempt.lanes import Lanes
from agentkit.runtime.attempt.opening import Opening
from agentkit.runtime.attempt.recovery import Recovery
from agentkit.runtime.attempt.settling import Settling
from agentkit.runtime.attempt.shared import Errands, adapter_errors
from agentkit.runtime.context import RunContext
from agentkit.runtime.deadline import within
from agentkit.runtime.purchase import CheckedResult, Purchase


class Attempts:
    """Makes the attempts of one run; each stage stands in a module of its own."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.errands = Errands(context)
        self.closing = Closing(context)
        funding = Funding(context)
        self._lanes = Lanes(context)
        self._opening = Opening(context, funding, self.closing)
        self._results = Results(context, self.closing)
        self._settling = Settling(context, funding, self.errands)
        self._recovery = Recovery(context, self._lanes, self._results, self.closing)

    async def deliver(
        self, purchase: Purchase, offer: Offer, submitting: asyncio.Event, *, extra: bool = False
    ) -> CheckedResult:
        """Have a purchase done under an offer, and check the result; nothing is paid yet.

        `submitting` is set when the provider is about to be asked.  `extra`: it is one attempt more
        than the plan foresaw.  Raises ProviderError once the attempt is closed, RunPaused when the
        run cannot go on.
        """
        offer = await self._opening.current(purchase, offer)
        limits = purchase.node.limits
        async with self._lanes.of(offer):
            attempt, payment = await self._opening.open(purchase, offer, extra=extra)
            share = self._context.deadline.share(purchase.node.name)
            started = time.monotonic()
            submitting.set()
            handed_over = False
            try:
                provider = self._context.provider(offer.provider)
                async with self._results.time_limit(purchase, offer, attempt, share):
                    with adapter_errors(offer):
                        async with within(
                            limits.submit, lambda s: SubmitTimedOut(s, provider=offer.label)
                        ):
                            sending = provider.submit(purchase.task, offer, attempt, payment)
                            # What cannot be found again is not abandoned half sent.
                            await (self._context.stop.or_stop(sending) if offer.finds else sending)
                        handed_over = True
                        result = await self._results.wait_for(offer, attempt)
            except ProviderError as error:
                if isinstance(error, Unavailable) and handed_over:
                    error.unknown = True  # the provider has the task and may still do it
                return await self._after_failure(purchase, offer, attempt, error)
        seconds = time.monotonic() - started
        return await self._results.check(purchase, CheckedResult(attempt, offer, result, seconds))

    async def _after_failure(
        self, purchase: Purchase, offer: Offer, attempt: Attempt, error: ProviderError
    ) -> CheckedResult:
        """Close an attempt that failed and raise its error, unless its provider has a result."""
        if error.unknown and offer.finds:
            delivery = await self._recovery.recover(purchase, attempt)
            if delivery is not None:
                return delivery
        elif isinstance(error, BadOutput):
            await self.closing.close_answered(attempt, offer, error)
        elif error.unknown:
            await self.closing.close_without_result(attempt, offer, str(error))
        else:
            await self.closing.close_unpaid(attempt, str(error))
        raise error

    async def recover(self, purchase: Purchase, attempt: Attempt) -> CheckedResult | None:
        """Return what an open attempt delivered; None once it is closed without a result."""
        return await self._recovery.recover(purchase, attempt)

    async def settle(
        self, purchase: Purchase, deliveries: Sequence[CheckedResult]
    ) -> tuple[Artifact, ...]:
        """Pay for deliveries that agree, record the outputs of the first, and return them."""
        return await self._settling.settle(purchase, deliveries)
