"""What the stages of an attempt share: the edge to other people's adapters, and errands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager, suppress

from agentkit.errors import (
    PaymentError,
    ProtocolBroken,
    ProviderError,
    RunPaused,
    StateError,
)
from agentkit.market.attempt import Attempt, Message
from agentkit.market.carrying import carry
from agentkit.market.offer import Offer
from agentkit.market.seams import Rail
from agentkit.runtime.context import RunContext

CALL_SECONDS = 10.0
"""Seconds in which a provider has to say what became of an attempt, or stop it."""


@contextmanager
def adapter_errors(offer: Offer) -> Iterator[None]:
    """Turn any foreign exception of a provider's adapter into ProtocolBroken.

    This is the boundary between the run and other people's code.  Its error is `unknown`: nobody
    can say what the provider did before the adapter failed.
    """
    try:
        yield
    except (ProviderError, RunPaused, StateError):
        raise
    except Exception as error:
        why = f"its answer made no sense ({type(error).__name__}: {error})"
        raise ProtocolBroken(why, provider=offer.label, unknown=True) from error


def is_retryable(error: BaseException) -> bool:
    """Return whether asking the same provider again may help."""
    return isinstance(error, ProviderError) and error.retryable


async def cancel_at_provider(context: RunContext, attempt: Attempt, offer: Offer) -> None:
    """Ask a provider to stop an attempt, without waiting long for its answer."""
    with suppress(ProviderError, TimeoutError), adapter_errors(offer):
        async with asyncio.timeout(CALL_SECONDS):
            await context.provider(attempt.provider).cancel(attempt)


class Errands:
    """Work that nothing waits for, such as telling a provider that it was paid.

    A message that fails is not repeated: the provider sees the same voucher with the next payment,
    or when the channel is closed.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Awaitable[None]) -> None:
        """Do something beside the run; our own errors from it are dropped."""

        async def quietly() -> None:
            with suppress(ProviderError, PaymentError, StateError, RunPaused):
                await work

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def carry(self, rail: Rail, messages: Sequence[Message]) -> None:
        """Bring a rail's messages to their providers beside the run."""
        for message in messages:
            self.start(carry(self._context.resources.providers, rail, message))

    async def wait(self) -> None:
        """Wait for the errands that are still under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
