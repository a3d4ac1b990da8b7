"""What providers do wrong, or refuse."""

from __future__ import annotations

from typing import ClassVar

from agentkit.errors.base import AgentKitError, in_one_line


class ProviderError(AgentKitError):
    """A provider did not do what was asked.

    `retryable`: the same request may succeed later.  `unknown`: the request may have reached the
    provider, so whether it was done cannot be told from this error alone.  `of_task`: the provider
    says that the task itself is wrong, whoever does it.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        provider: str = "",
        unknown: bool = False,
        of_task: bool = False,
        hint: str = "",
    ) -> None:
        told = in_one_line(message)
        super().__init__(f"{provider}: {told}" if provider else told, hint=hint)
        self.provider = provider
        self.unknown = unknown
        self.of_task = of_task


class Unavailable(ProviderError):
    """The provider cannot be reached."""

    retryable = True
    default_hint = "run `agentkit providers` to see which providers answer"


class RateLimited(ProviderError):
    """The provider takes no more requests for now.  `retry_after` is in seconds."""

    retryable = True

    def __init__(self, message: str = "", *, provider: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, provider=provider)
        self.retry_after = retry_after


class Refused(ProviderError):
    """The provider will not do this task."""


class OfferExpired(ProviderError):
    """The offer's price no longer holds."""


class LeaseLost(ProviderError):
    """The provider gave up a task it had accepted."""


class BadOutput(ProviderError):
    """A complete answer came from the provider and cannot be used.

    `billed`: what the provider bills for it by its own figures, as Money; None where it gives none,
    so that the attempt's at most counts.  Where it is paid on delivery, neither is paid.
    """

    def __init__(
        self,
        message: str = "",
        *,
        provider: str = "",
        of_task: bool = False,
        hint: str = "",
        billed: object = None,
    ) -> None:
        super().__init__(message, provider=provider, of_task=of_task, hint=hint)
        self.billed = billed


class ProtocolBroken(ProviderError):
    """The provider's answer does not follow its protocol."""


class AdapterFailed(ProtocolBroken):
    """The adapter of a provider raised what no adapter may: a bug in that package."""

    default_hint = "report it to the package that brings the adapter, with the traceback"
