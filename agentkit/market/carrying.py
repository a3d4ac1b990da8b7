"""Brings a rail's message to its provider, and the answer back to the rail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agentkit.errors import Unavailable
from agentkit.market.attempt import Message
from agentkit.market.seams import Provider, Rail

CARRY_SECONDS = 60.0
"""Seconds in which a provider has to answer a rail's message."""


def provider_of(providers: Mapping[str, Provider], name: str) -> Provider:
    """Return a provider by name; raises Unavailable when it is not, or not any more, configured."""
    provider = providers.get(name)
    if provider is None:
        raise Unavailable("is not among the configured providers", provider=name)
    return provider


async def carry(
    providers: Mapping[str, Provider],
    rail: Rail,
    message: Message,
    *,
    seconds: float = CARRY_SECONDS,
) -> None:
    """Carry a message of a rail to its provider, and let the rail finish with the answer.

    Raises what provider and rail raise, and Unavailable where no answer came in `seconds`.
    """
    provider = provider_of(providers, message.provider)
    try:
        async with asyncio.timeout(seconds) as limit:
            answer = await provider.carry(message)
    except TimeoutError as error:
        if not limit.expired():  # another limit's, such as the caller's
            raise
        raise Unavailable(f"took no message in {seconds:g} s") from error
    await rail.finish(answer)
