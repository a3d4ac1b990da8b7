"""Proof that a purchase settled, and for how much."""

from __future__ import annotations

from typing import Literal

from agentkit.market.attempt import Attempt, Evidence
from agentkit.market.value import Value
from agentkit.money import Money

Standing = Literal["paid", "billed elsewhere", "uncertain"]


class Receipt(Value):
    """What became of one attempt that cost something.

    `uncertain`: the outcome is unknown, and `amount` (the attempt's at most) counts as spent.
    """

    attempt: Attempt
    standing: Standing
    amount: Money
    result: str = ""
    usage: dict[str, int] = {}
    evidence: Evidence = Evidence()
    at: float
