"""Receipts: what became of each paid attempt, and what its provider signed for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from agentkit.graph.nodes import canonical
from agentkit.market.attempt import Attempt, Evidence, Result, SellerStatements
from agentkit.market.value import Value
from agentkit.money import Money

if TYPE_CHECKING:  # planning and local runs sign nothing, and its libraries are slow to import
    from agentkit.keys.messages import Delivery

Standing = Literal["paid", "billed elsewhere", "uncertain", "charged, not received"]

MAX_NAME = 200
"""The most characters of a name that a provider says and that is kept."""

RECEIVED: tuple[Standing, ...] = ("paid", "billed elsewhere")
"""The standings of attempts that delivered."""


class Receipt(Value):
    """The outcome of one attempt that cost something; `at` is in seconds since 1970.

    `uncertain`: the outcome is unknown, and `amount` (the attempt's at most) counts as spent.
    `charged, not received`: the provider says that it charged `amount`, and its answer is lost or
    could not be used.  `statements` are the seller's own, for purchases over x402.  `model` is the
    one that answered, by its provider's name, and `finish_reason` why it stopped (`stop`, `length`,
    `tool_calls`), in the words of OpenAI's API; both "" where nobody says.
    """

    attempt: Attempt
    standing: Standing
    amount: Money
    result: str = ""
    usage: dict[str, int] = {}
    evidence: Evidence = Evidence()
    at: float
    statements: SellerStatements = SellerStatements()
    model: str = ""
    finish_reason: str = ""

    @classmethod
    def of(
        cls,
        attempt: Attempt,
        result: Result,
        *,
        at: float,
        amount: Money | None = None,
        standing: Standing = "paid",
    ) -> Receipt:
        """Return the receipt of a delivered attempt; `amount` is the result's price unless given.

        `at` is in seconds since 1970.
        """
        return cls(
            attempt=attempt,
            standing=standing,
            amount=result.price if amount is None else amount,
            result=result.digest,
            usage=result.usage,
            evidence=result.evidence,
            at=at,
            statements=result.statements,
            model=result.model[:MAX_NAME],
            finish_reason=result.finish_reason[:MAX_NAME],
        )

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut at its limit of tokens."""
        return self.finish_reason == "length"

    @property
    def delivery(self) -> Delivery:
        """The statement that the provider signed; `evidence` has the signature."""
        return delivery_of(self.attempt.id, self.result, self.amount, self.usage)


def delivery_of(attempt: str, result: str, price: Money, usage: Mapping[str, int]) -> Delivery:
    """Return the statement about a delivery that its provider signs (EIP-712).

    `attempt` and `result` are digests in hex.  Raises ValueError for another text, and
    OverflowError, when it is hashed, for a negative price.
    """
    from agentkit.keys.messages import Delivery

    return Delivery(
        attempt=bytes.fromhex(attempt),
        result=bytes.fromhex(result),
        price=price.units,
        usage=hashlib.sha256(canonical(dict(usage))).digest(),
    )
