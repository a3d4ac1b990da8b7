"""Putting money in place with a payee before attempts are paid from it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from agentkit.errors import InsufficientFunds, SettleTimedOut, StateError
from agentkit.market.attempt import Message
from agentkit.market.carrying import carry
from agentkit.market.offer import Offer
from agentkit.market.seams import Rail, Wanted
from agentkit.money import Money
from agentkit.runtime import hints
from agentkit.runtime.context import RunContext
from agentkit.runtime.deadline import within
from agentkit.runtime.purchase import Purchase

FUNDINGS = 3
"""How often a rail is asked to put money in place for one attempt."""


class Funding:
    """Funds the rails that one run pays by."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._locks: dict[str, asyncio.Lock] = {}

    def lock(self, offer: Offer) -> asyncio.Lock:
        """Return what lets one purchase at a time fund an offer's payee.

        The next one finds what the first put in place, and often needs no top-up of its own.
        """
        return self._locks.setdefault(offer.payee or offer.label, asyncio.Lock())

    async def fund(self, purchase: Purchase, offer: Offer, wanted: Wanted, least: Money) -> None:
        """Have the offer's rail put at least `least` in place, and tell the payee.

        Raises what the rail raises, and RunPaused when the chain or the journal cannot be asked.
        """
        rail = self._context.rail(offer.rail)
        try:
            async with within(purchase.node.limits.settle, SettleTimedOut):
                for message in await self._top_up(rail, offer, wanted, least):
                    await carry(self._context.resources.providers, rail, message)
        except StateError as error:
            raise self._context.stop.paused(
                f"{offer.label} cannot be paid: {error}",
                hint=hints.after(error, self._context.run),
            ) from error

    async def _top_up(
        self, rail: Rail, offer: Offer, wanted: Wanted, least: Money
    ) -> Sequence[Message]:
        """Fund all that is planned with the payee, or only `least` if the wallet has no more.

        One large top-up costs as much gas as a small one.
        """
        planned = self._still_planned(offer)
        if planned > least:
            with suppress(InsufficientFunds):
                return await rail.fund(offer, planned, wanted)
        return await rail.fund(offer, least, wanted)

    def _still_planned(self, offer: Offer) -> Money:
        """Return the worst case of what this run may still open with a payee.

        A node counts for its chosen payee, and for an alternate where that has stepped in.  So the
        sum over all payees may exceed the run's hold; the rail bounds each by the hold.
        """
        state = self._context.state
        units = 0
        for node in state.planned.nodes:
            chosen = node.offer and (node.offer.rail, node.offer.payee) == (offer.rail, offer.payee)
            if chosen or node.name == offer.node:
                units += state.rest_of(node)

        for attempts in state.purchases.values():
            for attempt in attempts.open.values():
                if (attempt.rail, attempt.payee) == (offer.rail, offer.payee):
                    units -= attempt.at_most.units
        return Money(max(units, 0), offer.at_most.asset)
