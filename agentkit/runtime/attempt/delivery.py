"""From an attempt that was handed over to a result that may be paid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentkit.errors import BadOutput, ExecuteTimedOut, ProtocolBroken, RunPaused
from agentkit.market.attempt import Attempt, Result
from agentkit.market.offer import Offer
from agentkit.runtime import hints, result_checks
from agentkit.runtime.attempt.closing import Closing
from agentkit.runtime.attempt.shared import adapter_errors, cancel_at_provider
from agentkit.runtime.context import RunContext
from agentkit.runtime.deadline import within
from agentkit.runtime.purchase import CheckedResult, Purchase
from agentkit.runtime.verifiers import judge


class Results:
    """Waits for results, and checks them before they are paid."""

    def __init__(self, context: RunContext, closing: Closing) -> None:
        self._context, self._closing = context, closing

    @asynccontextmanager
    async def time_limit(
        self, purchase: Purchase, offer: Offer, attempt: Attempt, share: float | None = None
    ) -> AsyncIterator[None]:
        """Bound an execution by the node's limit and by its `share` of the deadline, in seconds.

        On timeout the attempt is cancelled at its provider.  At the run's deadline one that can be
        found later is left there, and the run pauses.
        """
        limits = [
            seconds for seconds in (purchase.node.limits.execute, share) if seconds is not None
        ]
        shortest = min(limits, default=None)
        try:
            async with within(shortest, lambda s: ExecuteTimedOut(s, provider=offer.label)):
                yield
        except ExecuteTimedOut:
            if offer.finds and self._context.deadline.passed:
                raise self._context.stop.paused(
                    "its deadline has passed", hint=hints.replan(self._context.run)
                ) from None
            await cancel_at_provider(self._context, attempt, offer)
            raise

    async def wait_for(self, offer: Offer, attempt: Attempt) -> Result:
        """Wait for a result; a stop abandons it only where it can be found again."""
        waiting = self._context.provider(offer.provider).result(attempt)
        return await (self._context.stop.or_stop(waiting) if offer.finds else waiting)

    async def check(self, purchase: Purchase, delivery: CheckedResult) -> CheckedResult:
        """Return a delivery that may be paid.

        Raises BadOutput or ProtocolBroken once its attempt is refused and closed, and RunPaused
        when the user's own verifier failed.
        """
        await self._check_result(purchase, delivery)

        judging = judge(purchase.verifiers, purchase.task, delivery.result)
        finds = delivery.offer.finds
        verdict = await (self._context.stop.or_stop(judging) if finds else judging)
        if verdict.mend:
            raise await self._verifier_failed(purchase, delivery, verdict.reason)
        if verdict.outcome != "pass":
            error = BadOutput(
                f"its output did not verify: {verdict.reason}", provider=delivery.offer.label
            )
            blame = verdict.outcome == "fail"
            await self._closing.refuse(delivery, str(error), blame=blame)
            raise error
        return delivery

    async def _check_result(self, purchase: Purchase, delivery: CheckedResult) -> None:
        """Check what every result has to keep to: price, units, kind of output, schema."""
        attempt = delivery.attempt
        offer = delivery.offer
        result = delivery.result
        try:
            with adapter_errors(offer):
                result.digest  # noqa: B018  # a result without a digest is no result
                await result_checks.check_aside(
                    purchase.node, purchase.task, offer, attempt, result
                )
        except BadOutput as error:
            await self._closing.refuse(delivery, str(error))
            raise
        except ProtocolBroken as error:
            await self._closing.close_without_result(attempt, offer, str(error))
            raise

    async def _verifier_failed(
        self, purchase: Purchase, delivery: CheckedResult, reason: str
    ) -> RunPaused:
        """Return the pause for a delivery whose verifier, a function of the user's, failed.

        The attempt stays open where it can be found again, so that the mended function judges the
        same delivery and nothing is bought twice.
        """
        why = f"{purchase.node.name}: what verifies it failed: {reason}"
        if not delivery.offer.finds:
            await self._closing.refuse(delivery, why, blame=False)
        return self._context.stop.paused(why, mend=purchase.node)
