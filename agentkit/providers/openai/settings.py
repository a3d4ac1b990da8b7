"""What the user configured for one OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agentkit.errors import ConfigError
from agentkit.money import Rate


@dataclass(frozen=True)
class EndpointSettings:
    """What the user configured for one endpoint.

    `prices` by unit; `models`: the endpoint's name of each model; `payee`: the address to pay;
    `label` marks a stand-in.  `accepts`: by either name of a model, other names under which it may
    answer.  `overhead_tokens` are added to every question there, and `reasoning_tokens` may be
    counted in an answer beyond its limit.
    """

    prices: Mapping[str, Rate]
    models: Mapping[str, str]
    payee: str = ""
    key: str = field(default="", repr=False)
    label: str = ""
    accepts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    overhead_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def overhead(self) -> dict[str, int]:
        """The units that the endpoint adds to every purchase; empty where it adds none."""
        added = {"input": self.overhead_tokens, "output": self.reasoning_tokens}
        return {unit: count for unit, count in added.items() if count}

    def accepted_as(self, model: str) -> Iterator[str]:
        """Yield the names that the user accepts for an answer of the endpoint's `model`."""
        ours = [name for name, there in self.models.items() if there == model]
        for name in (model, *ours):
            yield from self.accepts.get(name, ())


def check_prices(name: str, settings: EndpointSettings) -> None:
    """Raise ConfigError for a price of a unit that chat endpoints do not charge for."""
    unknown = sorted(set(settings.prices) - {"input", "output", "request"})
    if unknown:
        raise ConfigError(
            f"providers.{name}.price.{unknown[0]} is not a price of this adapter",
            hint="set price.input, price.output or price.request",
        )
