"""From an attempt that was handed over to a result that may be paid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentkit.errors import (
    BadOutput,
    ExecuteTimedOut,
    ProtocolBroken,
    RunPaused,
    StateError,
)
from agentkit.market.attempt import Attempt, Result
from agentkit.market.offer import Offer
from agentkit.runtime import hints, result_checks
from agentkit.runtime.attempt.closing import Closing
from agentkit.runtime.attempt.shared import adapter_errors, cancel_at_provider
from agentkit.runtime.context import RunContext
from agentkit.runtime.deadline import within
from agentkit.runtime.failures import reason_of
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
        when the user's own verifier, or the node's kind, failed.
        """
        await self._check_result(purchase, delivery)

        judging = judge(purchase.verifiers, purchase.task, delivery.result)
        finds = delivery.offer.finds
        verdict = await (self._context.stop.or_stop(judging) if finds else judging)
        if verdict.mend:
            why = f"what verifies it failed: {verdict.reason}"
            raise await self._pause_unjudged(purchase, delivery, why)
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
                _check_form(result)
                result_checks.check_bill(purchase.task, offer, attempt, result)
        except ProtocolBroken as error:
            await self._closing.close_without_result(attempt, offer, str(error))
            raise
        except BadOutput as error:
            await self._closing.refuse(delivery, str(error))
            raise
        await self._check_outputs(purchase, delivery)

    async def _check_outputs(self, purchase: Purchase, delivery: CheckedResult) -> None:
        """Check outputs as the node's kind says.

        What else the kind raises is a defect of its own: the provider is not blamed for it.
        """
        node = purchase.node
        try:
            await result_checks.check_outputs(node, delivery.offer, delivery.result)
        except BadOutput as error:
            await self._closing.refuse(delivery, str(error))
            raise
        except (RunPaused, StateError):
            raise
        except Exception as error:
            why = f"the kind {node.kind!r} failed to check the result: {reason_of(error)}"
            hint = hints.mend_kind(self._context.run, node)
            raise await self._pause_unjudged(purchase, delivery, why, hint) from error

    async def _pause_unjudged(
        self, purchase: Purchase, delivery: CheckedResult, why: str, hint: str = ""
    ) -> RunPaused:
        """Return the pause for a delivery that could not be judged: a verifier or a kind failed.

        The attempt stays open where it can be found again, so that the mended code judges the
        same delivery and nothing is bought twice.
        """
        why = f"{purchase.node.name}: {why}"
        if not delivery.offer.finds:
            await self._closing.refuse(delivery, why, blame=False)
        return self._context.stop.paused(why, mend=purchase.node, hint=hint)


def _check_form(result: Result) -> None:
    """Raise what reading a result raises that is none: one without a digest, or without bytes."""
    result.digest  # noqa: B018
    for output in result.outputs:
        output.open().close()
