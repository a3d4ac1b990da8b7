"""Paying for uploads: what memory asks of the wallet's money, and no more."""

from __future__ import annotations

from typing import Protocol

from agentkit.market.seams import Fate
from agentkit.market.value import Value
from agentkit.market.x402 import Proof, Requirement


class UploadPayment(Value):
    """The payment for one upload: its proof, what people call it, and what became of it."""

    proof: Proof
    name: str
    fate: Fate = "open"


class UploadPayer(Protocol):
    """Pays for the upload of items, each of them once, out of the wallet under its limits.

    Every method may raise StateError, and ProtocolBroken from the chain.
    """

    def takes(self, required: Requirement) -> bool:
        """Whether this wallet can pay so."""

    async def pay(self, item: str, required: Requirement) -> UploadPayment:
        """Return the payment for an item, on disk and reserved before; the same each time.

        Raises OverBudget, NotAllowed, InsufficientFunds, and IntentMismatch when it was signed
        for other terms and may still be drawn.
        """

    async def paid(self, item: str) -> UploadPayment | None:
        """Return the newest payment for an item and what the chain says of it; None for none.

        What was reserved for one that can never be drawn goes back.
        """

    async def settle(self, item: str) -> None:
        """Book the payment: the item was taken for it."""
