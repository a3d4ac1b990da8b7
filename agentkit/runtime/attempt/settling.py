"""Paying for deliveries, and recording what was bought, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.artifacts import Artifact
from agentkit.errors import InsufficientFunds, PaymentError, ProviderError, StoreTimedOut
from agentkit.journal.blobs import keep
from agentkit.market.attempt import Message
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Event, Rail, Transaction, Wanted
from agentkit.runtime import hints
from agentkit.runtime.attempt.funding import Funding
from agentkit.runtime.attempt.shared import Errands
from agentkit.runtime.context import RunContext
from agentkit.runtime.deadline import within
from agentkit.runtime.purchase import CheckedResult, Purchase
from agentkit.runtime.run_log import Work

Told = list[tuple[Rail, Sequence[Message]]]
"""What providers have to be told once a payment is durable."""


class Settling:
    """Settles the deliveries of one run."""

    def __init__(self, context: RunContext, funding: Funding, errands: Errands) -> None:
        self._context = context
        self._funding = funding
        self._errands = errands

    async def settle(
        self, purchase: Purchase, deliveries: Sequence[CheckedResult]
    ) -> tuple[Artifact, ...]:
        """Pay for deliveries that agree, record the outputs of the first, and return them.

        Raises RunPaused when they cannot be paid now; the attempts then stay open, and are found
        again when the run is resumed.
        """
        first = deliveries[0]
        async with within(purchase.node.limits.store, StoreTimedOut):
            outputs = await self._context.resources.put(first.result.outputs)

        def work(tx: Transaction) -> tuple[list[Event], Told]:
            """Pay each delivery, count it as spent, and record the outputs."""
            receipts: list[Receipt] = []
            told: Told = []
            for delivery in deliveries:
                rail = self._context.rail(delivery.attempt.rail)
                receipt, messages = rail.settle(tx, delivery.attempt, delivery.result)
                self._context.ledger.spend(tx, delivery.attempt, receipt.amount, receipt.standing)
                receipts.append(receipt)
                told.append((rail, messages))
            return [purchase.done(keep(tx, outputs), tuple(receipts))], told

        try:
            told = await self._commit(purchase, deliveries, work)
        except (PaymentError, ProviderError) as error:
            who = first.attempt.provider
            raise self._context.stop.paused(
                f"{who} delivered {purchase.node.name!r} and cannot be paid: {error}",
                hint=hints.after(error, self._context.run),
            ) from error
        for rail, messages in told:
            self._errands.carry(rail, messages)
        return outputs

    async def _commit(
        self, purchase: Purchase, deliveries: Sequence[CheckedResult], work: Work[Told]
    ) -> Told:
        """Commit the payment; a rail that lacks funds is funded once.

        A rail that was restored has to ask its payee what it promised before it can promise more.
        """
        try:
            return await self._context.log.commit(work)
        except InsufficientFunds:
            for delivery in deliveries:
                # The at most is reserved already, so nothing is set aside a second time.
                wanted = Wanted(delivery.attempt, lambda tx: None)
                nothing_more = delivery.attempt.at_most.asset.zero()
                await self._funding.fund(purchase, delivery.offer, wanted, nothing_more)
            return await self._context.log.commit(work)
