"""Closing attempts that are not paid for a delivery: unpaid, refused, or uncertain."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from agentkit.errors import PaymentError
from agentkit.journal.events import AttemptClosed
from agentkit.market.attempt import Attempt, Evidence, Result
from agentkit.market.offer import Offer
from agentkit.market.receipt import Receipt, Standing
from agentkit.market.seams import AskableRail, Event, Transaction
from agentkit.runtime.attempt.shared import cancel_at_provider
from agentkit.runtime.context import RunContext
from agentkit.runtime.purchase import CheckedResult

Outcome = Literal["unpaid", "uncertain"]


class Closing:
    """Closes attempts of one run.

    An attempt whose payment left before it delivered closes as uncertain: its at most counts as
    spent.  One that is paid on delivery closes as unpaid, and its reservation is given back.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context

    async def close_unpaid(self, attempt: Attempt, why: str) -> None:
        """Close an attempt that is known not to be paid."""
        await self._close(attempt, "unpaid", why)

    async def close_without_result(self, attempt: Attempt, offer: Offer, why: str) -> None:
        """Close an attempt whose result cannot be had any more."""
        await self._close(attempt, _outcome(offer), why)

    async def refuse(self, delivery: CheckedResult, why: str, *, blame: bool = True) -> None:
        """Close an attempt whose result is not paid; `blame` counts against its provider.

        Where the payment left with the request, a bad answer is billed like a good one.
        """
        refused = delivery.result if blame else None
        await self._close(delivery.attempt, _outcome(delivery.offer), why, refused=refused)

    async def cancel(self, attempt: Attempt, why: str) -> None:
        """Stop an open attempt at its provider and close it."""
        offer = self._context.state.offers[attempt.terms]
        await cancel_at_provider(self._context, attempt, offer)
        await self.close_without_result(attempt, offer, why)

    async def cancel_all(self, purchase: str, why: str) -> None:
        """Stop and close every open attempt of a purchase, as far as its rail allows."""
        for attempt in list(self._context.state.attempts_at(purchase).open.values()):
            with suppress(PaymentError):  # one that cannot be closed must not keep the others open
                await self.cancel(attempt, why)

    async def _close(
        self, attempt: Attempt, outcome: Outcome, why: str, refused: Result | None = None
    ) -> None:
        """Release the reservation and record the outcome, in one transaction."""
        if attempt.id not in self._context.state.attempts_at(attempt.purchase).open:
            return  # two stages may both find out that it has ended

        def work(tx: Transaction) -> tuple[list[Event], None]:
            receipt = self._release(tx, attempt, outcome)
            return [_closed_event(attempt, outcome, why, receipt, refused)], None

        await self._context.log.commit(work)

    def _release(self, tx: Transaction, attempt: Attempt, outcome: Outcome) -> Receipt | None:
        """Undo the reservation; returns the receipt of an attempt that counts as spent."""
        ledger = self._context.ledger
        rail = self._context.rail(attempt.rail)
        uncertain = outcome == "uncertain"
        charged = rail.charged(tx, attempt) if isinstance(rail, AskableRail) else None
        may_be_drawn = rail.release(tx, attempt, uncertain=uncertain)
        if uncertain:
            # Where the provider's books can be asked, what it charged is known, only not received.
            standing: Standing = "uncertain" if charged is None else "charged, not received"
            amount = attempt.at_most if charged is None else charged
            ledger.spend(tx, attempt, amount, standing)
            return Receipt(attempt=attempt, standing=standing, amount=amount, at=tx.now)
        # What the payee can still draw stays set aside until the rail knows what became of it.
        if not may_be_drawn:
            ledger.unreserve(tx, attempt)
        return None


def _outcome(offer: Offer) -> Outcome:
    return "unpaid" if offer.pays == "on_delivery" else "uncertain"


def _closed_event(
    attempt: Attempt, outcome: Outcome, why: str, receipt: Receipt | None, refused: Result | None
) -> AttemptClosed:
    """Return the event of an attempt that was not paid for a delivery."""
    return AttemptClosed(
        attempt=attempt.id,
        purchase=attempt.purchase,
        node=attempt.node,
        item=attempt.item,
        outcome=outcome,
        reason=why,
        receipt=receipt,
        provider=attempt.label,
        refused=refused is not None,
        result=refused.digest if refused else "",
        evidence=refused.evidence if refused else Evidence(),
    )
