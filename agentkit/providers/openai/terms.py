"""What an endpoint asks for an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentkit.money import Rate


@dataclass(frozen=True)
class PaymentTerms:
    """What an endpoint asks for an answer; the last three as in `market.offer.Offer`."""

    rates: dict[str, Rate]
    payee: str
    finds: bool = False
    rail: str = ""
    channel: Mapping[str, str | int] = field(default_factory=dict)
