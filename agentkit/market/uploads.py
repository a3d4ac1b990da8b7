"""The interface by which memory pays for uploads out of the wallet."""

from __future__ import annotations

from typing import Protocol

from agentkit.market.seams import Fate
from agentkit.market.value import Value
from agentkit.market.x402 import Proof, Requirement


class UploadPayment(Value):
    """The payment for one upload: its proof, its name for people, and what became of it."""

    proof: Proof
    name: str
    fate: Fate = "open"


class UploadPayer(Protocol):
    """Pays for the upload of each item once, out of the wallet and under its limits.

    Every method may raise StateError, and ProtocolBroken for an odd answer of the chain.
    """

    def takes(self, required: Requirement) -> bool:
        """Return whether this wallet can pay as required."""

    async def pay(self, item: str, required: Requirement) -> UploadPayment:
        """Return the payment for an item, which was stored and reserved first; the same each time.

        Raises OverBudget, NotAllowed, InsufficientFunds, and IntentMismatch when a payment was
        signed for other terms and may still be drawn.
        """

    async def paid(self, item: str) -> UploadPayment | None:
        """Return the newest payment for an item and what the chain says of it; None for none.

        The reservation of a payment that can never be drawn is given back.
        """

    async def settle(self, item: str) -> None:
        """Book the payment for an item, because the item was taken for it."""
