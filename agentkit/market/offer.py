"""An offer: a provider's priced answer to a task spec, which expires."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Literal

from agentkit.errors import BadAmount
from agentkit.graph.nodes import canonical
from agentkit.market.task import CPU_MS, Load, Units
from agentkit.market.value import Value
from agentkit.money import Asset, Money, Rate, rounded_up

Pays = Literal["on_delivery", "with_request", "billed"]
"""When a rail parts with money: after verification, with the request, or by a bill elsewhere."""


class Offer(Value):
    """The terms under which one provider node would do one graph node.

    `price` and `at_most` are for one purchase (one item of a mapped node); `eta` is its duration
    in seconds, and `lanes` how many purchases the provider does at once.  `finds`: the provider
    can be asked later what became of an attempt.  `reputation`: the share of this agent's own
    attempts there that delivered what was asked; a provider's own figure is not believed.
    `rails` are all ways of paying that the provider takes, `rail` is the one that is used, and
    `paid_because` says why.

    `egress` is the price of a byte that goes on to another provider node, `bandwidth` how many
    bytes do in a second (0: at once).  `context`: the most tokens, of question and answer
    together, that the model takes; `gpu` and `vram` (GB): what it runs on; `tuning`: the methods
    it trains by.  `channel` are the terms of a channel with the payee (x402 `batch-settlement`), or
    say who settles (x402 `upto`).  `overhead`: units that this provider adds to every
    purchase, such as the tokens of its own system prompt.  A field that is left out says nothing.
    """

    provider: str
    provider_node: str = ""
    node: str
    on: str
    model: str = ""
    price: Money
    at_most: Money
    eta: float
    lanes: int = 1
    expires: float
    rail: str
    rails: dict[str, Pays] = {}
    pays: Pays
    paid_because: str = ""
    payee: str = ""
    rates: dict[str, Rate]
    finds: bool = False
    evidence: tuple[str, ...] = ()
    reputation: float = 1.0
    egress: Rate | None = None
    bandwidth: float = 0.0
    context: int = 0
    gpu: str = ""
    vram: int = 0
    tuning: tuple[str, ...] = ()
    channel: dict[str, str | int] = {}
    overhead: dict[str, int] = {}

    @property
    def terms(self) -> str:
        """Digest of what is agreed: provider, model, rates, and who is paid how."""
        fields = {"provider", "provider_node", "model", "rail", "pays", "payee", "rates"}
        if self.channel:
            fields.add("channel")
        if self.overhead:
            fields.add("overhead")
        return hashlib.sha256(canonical(self.model_dump(mode="json", include=fields))).hexdigest()

    def most(self, load: Load) -> dict[str, int]:
        """Return the most units that this provider may charge for a load."""
        return with_overhead(load.most, self.overhead)

    @property
    def label(self) -> str:
        """The name of this offer's provider node for people."""
        return f"{self.provider}/{self.provider_node}" if self.provider_node else self.provider

    def paid_by(self, rail: str, because: str = "") -> Offer:
        """Return the offer paid by another of its `rails`."""
        changes = {"rail": rail, "pays": self.rails[rail], "paid_because": because}
        return self.model_copy(update=changes)

    def seconds(self, items: int) -> float:
        """Return how many seconds `items` purchases take with `lanes` at once."""
        rounds = -(-items // max(self.lanes, 1))  # rounded up
        return self.eta * rounds


class Rejection(Value):
    """Why an offer, or a provider without one, was left out of a plan."""

    label: str
    reason: str


def priced(
    asset: Asset, rates: dict[str, Rate], load: Load, overhead: Units | None = None
) -> tuple[Money, Money]:
    """Return (price, at most) of one purchase; raises BadAmount when a unit has no rate."""
    expected = with_overhead(load.expected, overhead or {})
    most = with_overhead(load.most, overhead or {})
    return charge(asset, rates, expected), charge(asset, rates, most)


def with_overhead(units: Units, overhead: Units) -> dict[str, int]:
    """Return units with what a provider adds to them; it adds to none that is not there."""
    return {unit: count + overhead.get(unit, 0) for unit, count in units.items()}


def charge(asset: Asset, rates: dict[str, Rate], units: Units) -> Money:
    """Return what `units` cost, rounded up once; raises BadAmount when a unit has no rate.

    A provider without a rate for `cpu_ms` does not charge for it.
    """
    unpriced = sorted(set(units) - set(rates) - {CPU_MS})
    if unpriced:
        raise BadAmount(f"no price is known for {', '.join(unpriced)}")
    exact = Fraction()
    for unit, count in units.items():
        if unit in rates:
            exact += rates[unit].bind(asset).times(count)
    return rounded_up(asset, exact)
