"""What the user configured for one OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentkit.errors import ConfigError
from agentkit.money import Rate


@dataclass(frozen=True)
class EndpointSettings:
    """What the user configured for one endpoint.

    `prices` by unit; `models`: the endpoint's name of each model; `payee`: the address to pay;
    `label` marks a stand-in.
    """

    prices: Mapping[str, Rate]
    models: Mapping[str, str]
    payee: str = ""
    key: str = field(default="", repr=False)
    label: str = ""


def check_prices(name: str, settings: EndpointSettings) -> None:
    """Raise ConfigError for a price of a unit that chat endpoints do not charge for."""
    unknown = sorted(set(settings.prices) - {"input", "output", "request"})
    if unknown:
        raise ConfigError(
            f"providers.{name}.price.{unknown[0]} is not a price of this adapter",
            hint="set price.input, price.output or price.request",
        )
