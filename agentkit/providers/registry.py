"""Finds adapters by name: ours, and those that other packages bring as entry points.

An entry point of the group `agentkit.providers` is a function
`(name, settings, network) -> Provider`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from agentkit.config import ProviderSettings
from agentkit.errors import ConfigError
from agentkit.market.chain import Network
from agentkit.market.seams import Provider
from agentkit.providers.native import Native
from agentkit.providers.openai import (
    GAIA,
    HYPERBOLIC,
    EndpointSettings,
    OpenAI,
    Profile,
    check_prices,
)
from agentkit.providers.x402 import X402Endpoint

GROUP = "agentkit.providers"

Adapter = Callable[[str, ProviderSettings, Network], Provider]


def native(name: str, settings: ProviderSettings, network: Network) -> Provider:
    """Return the adapter of the native pool, whose nodes are at the configured addresses."""
    return Native(name, _addresses(name, settings), network)


def gaia(name: str, settings: ProviderSettings, network: Network) -> Provider:
    """Return the adapter of a Gaia node or domain."""
    return _openai(name, settings, network, GAIA)


def hyperbolic(name: str, settings: ProviderSettings, network: Network) -> Provider:
    """Return the adapter of Hyperbolic's serverless inference."""
    return _openai(name, settings, network, HYPERBOLIC)


def x402(name: str, settings: ProviderSettings, network: Network) -> Provider:
    """Return the adapter of an OpenAI-compatible endpoint that is paid by x402."""
    url = _addresses(name, settings)[0]
    return X402Endpoint(name, url, network, _endpoint_settings(name, settings))


def check(name: str, settings: ProviderSettings) -> None:
    """Raise ConfigError for settings that are wrong, whatever secrets the environment holds.

    No adapter of another package is loaded, and no secret is read.
    """
    if "/" in name:  # labels have a slash between provider and node
        raise ConfigError(
            f"{name!r} is not a name for a provider", hint=f"call it {name.replace('/', '-')!r}"
        )
    point = _entry_point(name, settings)
    if point.value.startswith(f"{__name__}:"):
        check_prices(name, EndpointSettings(prices=settings.price, models={}))
        _addresses(name, settings)


def provider(name: str, settings: ProviderSettings, network: Network) -> Provider:
    """Return the provider called `name`; raises ConfigError for settings that cannot be used."""
    adapter: Adapter = _entry_point(name, settings).load()
    return adapter(name, settings, network)


def _entry_point(name: str, settings: ProviderSettings) -> EntryPoint:
    """Return a provider's adapter, called like the provider unless `adapter` is set.

    Raises ConfigError for one that is not installed.
    """
    adapter = settings.adapter or name
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if adapter not in installed:
        raise ConfigError(
            f"there is no adapter {adapter!r} for providers.{name}",
            hint=f"set providers.{name}.adapter to one of: {', '.join(sorted(installed))}",
        )
    return installed[adapter]


def _openai(name: str, settings: ProviderSettings, network: Network, profile: Profile) -> Provider:
    """Return the adapter of an OpenAI-compatible endpoint with the dialect of `profile`."""
    url = _addresses(name, settings)[0]
    return OpenAI(name, url, network, profile, _endpoint_settings(name, settings))


def _endpoint_settings(name: str, settings: ProviderSettings) -> EndpointSettings:
    """Return the settings of a chat endpoint, with its key; raises ConfigError."""
    endpoint = EndpointSettings(
        prices=settings.price,
        models=settings.models,
        payee=settings.payee,
        key=settings.key(),
        label=settings.label,
        accepts=settings.accepts,
        overhead_tokens=settings.overhead_tokens,
        reasoning_tokens=settings.reasoning_tokens,
    )
    check_prices(name, endpoint)
    return endpoint


def _addresses(name: str, settings: ProviderSettings) -> tuple[str, ...]:
    """Return a provider's configured addresses; raises ConfigError without one."""
    if not settings.addresses:
        raise ConfigError(
            f"providers.{name} has no address", hint=f"set providers.{name}.url in agentkit.toml"
        )
    return settings.addresses
