"""Closing attempts that are not paid for a delivery: unpaid, refused, or uncertain."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from agentkit.errors import BadOutput, PaymentError
from agentkit.journal.events import AttemptClosed
from agentkit.market.attempt import Attempt, Evidence, Result
from agentkit.market.offer import Offer
from agentkit.market.receipt import Receipt, Standing
from agentkit.market.seams import AskableRail, Event, Transaction
from agentkit.money import Money
from agentkit.runtime.attempt.shared import cancel_at_provider
from agentkit.runtime.context import RunContext
from agentkit.runtime.purchase import CheckedResult

Outcome = Literal["unpaid", "uncertain"]


@dataclass(frozen=True)
class Unusable:
    """An answer that came and is not taken.

    `billed`: what its provider bills by its own figures, None where that is not known.  `result`:
    what it delivered, None where there was not even a result in it.
    """

    billed: object = None
    result: Result | None = None


class Closing:
    """Closes attempts of one run.

    An attempt whose payment left before it delivered closes as uncertain: its at most counts as
    spent.  If an answer came that cannot be used, what its provider bills for it counts instead,
    and the purchase may go to the next provider.  One that is paid on delivery closes as unpaid,
    and its reservation is given back.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context

    async def close_unpaid(self, attempt: Attempt, why: str) -> None:
        """Close an attempt that is known not to be paid."""
        await self._close(attempt, "unpaid", why)

    async def close_without_result(self, attempt: Attempt, offer: Offer, why: str) -> None:
        """Close an attempt whose result cannot be had any more."""
        await self._close(attempt, _outcome(offer), why)

    async def close_answered(self, attempt: Attempt, offer: Offer, error: BadOutput) -> None:
        """Close an attempt whose answer came and has no result in it."""
        await self._close(attempt, _outcome(offer), str(error), Unusable(error.billed))

    async def refuse(self, delivery: CheckedResult, why: str, *, blame: bool = True) -> None:
        """Close an attempt whose result is not paid; `blame` counts against its provider.

        Where the payment left with the request, a bad answer is billed like a good one.
        """
        result = delivery.result
        unusable = Unusable(result.price, result) if blame else None
        await self._close(delivery.attempt, _outcome(delivery.offer), why, unusable)

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
        self, attempt: Attempt, outcome: Outcome, why: str, unusable: Unusable | None = None
    ) -> None:
        """Release the reservation and record the outcome, in one transaction."""
        if attempt.id not in self._context.state.attempts_at(attempt.purchase).open:
            return  # two stages may both find out that it has ended

        def work(tx: Transaction) -> tuple[list[Event], None]:
            receipt = self._release(tx, attempt, outcome, unusable)
            return [_closed_event(attempt, outcome, why, receipt, unusable)], None

        await self._context.log.commit(work)

    def _release(
        self, tx: Transaction, attempt: Attempt, outcome: Outcome, unusable: Unusable | None
    ) -> Receipt | None:
        """Undo the reservation; returns the receipt of an attempt that counts as spent."""
        ledger = self._context.ledger
        rail = self._context.rail(attempt.rail)
        uncertain = outcome == "uncertain"
        # What was signed can be drawn whatever the provider bills, so such a rail knows better.
        if isinstance(rail, AskableRail):
            charged = rail.charged(tx, attempt)
        else:
            charged = _billed(attempt, unusable)
        may_be_drawn = rail.release(tx, attempt, uncertain=uncertain)
        if uncertain:
            # Where the provider says what it charged, only what it was for was not received.
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


def _billed(attempt: Attempt, unusable: Unusable | None) -> Money | None:
    """Return what an unusable answer is billed, up to the at most; None where nobody can say."""
    billed = unusable.billed if unusable else None
    if not isinstance(billed, Money) or billed.asset != attempt.at_most.asset or billed.units < 0:
        return None
    return min(billed, attempt.at_most)


def _closed_event(
    attempt: Attempt,
    outcome: Outcome,
    why: str,
    receipt: Receipt | None,
    unusable: Unusable | None,
) -> AttemptClosed:
    """Return the event of an attempt that was not paid for a delivery."""
    refused = unusable.result if unusable else None
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
        answered=unusable is not None,
    )
