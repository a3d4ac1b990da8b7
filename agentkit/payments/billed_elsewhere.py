"""The rail for providers that send bills of their own: no money moves, the price is counted."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.market.attempt import Attempt, Message, Payment, Result
from agentkit.market.offer import Offer, Pays
from agentkit.market.plan import Fee
from agentkit.market.receipt import Receipt
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Money


class ElsewhereRail:
    """Counts the configured price against every limit and moves no money.

    See `market.seams.Rail`; what its methods would move or ask for does not exist here.
    """

    @property
    def name(self) -> str:
        return "elsewhere"

    @property
    def pays(self) -> Pays:
        return "billed"

    async def quote(self, offers: Sequence[Offer], amounts: Sequence[Money]) -> Sequence[Fee]:
        return []

    async def fund(self, offer: Offer, need: Money, wanted: Wanted) -> Sequence[Message]:
        return []

    def reserve(self, tx: Transaction, attempt: Attempt) -> Payment:
        return Payment(rail="elsewhere")

    def settle(
        self, tx: Transaction, attempt: Attempt, result: Result
    ) -> tuple[Receipt, Sequence[Message]]:
        """Return a receipt that says that the provider bills the price itself."""
        receipt = Receipt.of(attempt, result, at=tx.now, standing="billed elsewhere")
        return receipt, []

    def release(self, tx: Transaction, attempt: Attempt, *, uncertain: bool) -> bool:
        return False

    async def balance(self) -> dict[str, Money]:
        return {}

    async def close(self, idle: float = 0.0) -> Sequence[Message]:
        return []

    async def insist(self, message: Message) -> str:
        return ""

    async def finish(self, answer: Message) -> None:
        return
