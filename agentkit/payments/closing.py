"""Closes channels and escrows, so that what is left in them comes back to the wallet."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from agentkit.errors import (
    ConfigError,
    OverBudget,
    PaymentError,
    ProtocolBroken,
    ProviderError,
    SettlementFailed,
    StateError,
    StoreUnavailable,
)
from agentkit.market.attempt import Message
from agentkit.market.carrying import carry
from agentkit.market.seams import Provider, Rail

CLOSE_SECONDS = 300.0
"""Seconds in which a provider has to answer a close: it waits for the chain, as a node does for
up to `payments.sender.PATIENCE` seconds, and what it does not answer costs us gas."""

CHAIN_ERRORS = (StoreUnavailable, ProtocolBroken, ConfigError)
"""What a chain's addresses end in that do not answer, answer nonsense, or are of another chain."""


async def close_all(
    rails: Mapping[str, Rail], providers: Mapping[str, Provider], idle: float
) -> dict[str, str]:
    """Close what was not used for `idle` seconds; returns the outcome of each, by label.

    If one cannot be closed, its outcome says why, and the others are closed.  Raises
    SettlementFailed when a run still has attempts open on one of them.
    """
    outcomes: dict[str, str] = {}
    for rail in rails.values():
        try:
            messages = await rail.close(idle)
        except CHAIN_ERRORS as error:  # one chain does not answer, or is another; others may
            outcomes[f"all over {rail.name}"] = f"not closed: {error}"
            continue
        for message in messages:
            outcome = await _close(rail, message, providers)
            outcomes[_label_of(message, taken=outcomes)] = outcome
    return outcomes


async def _close(rail: Rail, message: Message, providers: Mapping[str, Provider]) -> str:
    """Close one channel or escrow: by its provider, or without it where it does not answer."""
    try:
        await carry(providers, rail, message, seconds=CLOSE_SECONDS)
    except (ProviderError, SettlementFailed) as error:
        return await _close_without_provider(rail, message, error)
    except (PaymentError, StateError, OverBudget, ConfigError) as error:
        # Our own side failed, so the provider is not to blame and nothing is forced.
        return f"not closed: {error}"
    return "closed"


async def _close_without_provider(
    rail: Rail, message: Message, refusal: ProviderError | SettlementFailed
) -> str:
    """Do what the contract lets the payer do alone, and return in words what was done."""
    try:
        return await rail.insist(message) or f"not closed: {refusal}"
    except (PaymentError, StateError, ProviderError, OverBudget, ConfigError) as error:
        return f"not closed: {refusal}; and without the provider: {error}"


def _label_of(message: Message, taken: Collection[str]) -> str:
    """Return how people tell what a message would close, beside the labels that are `taken`.

    A provider may have several channels, and on several networks.
    """
    provider = f"{message.provider}/{message.provider_node}"
    if message.rail != "escrow":
        channel = str(message.body.get("channel", ""))
        return f"{provider}, channel {channel[:8]}" if provider in taken else provider
    attempt = str(message.body.get("attempt", ""))
    return f"{provider}, escrow {attempt[:8]}"
