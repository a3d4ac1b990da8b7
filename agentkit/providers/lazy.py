"""Opens a provider when it is first used, and reports bugs of adapters as such."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from agentkit.errors import AdapterFailed, AgentKitError, ConfigError, Unavailable
from agentkit.market.attempt import Attempt, JobStatus, Message, Payment, Result
from agentkit.market.offer import Offer
from agentkit.market.seams import Provider, ProviderInfo
from agentkit.market.task import Task, TaskSpec

log = logging.getLogger("agentkit")

T = TypeVar("T")


class LateProvider:
    """A provider that is made from its settings when it is first used.

    See `market.seams.Provider`.  Wrong settings make this provider Unavailable, and leave others
    alone.  The adapter may be another package's; whatever it raises beside our errors becomes
    AdapterFailed, with the line that raised it.
    """

    def __init__(self, name: str, make: Callable[[], Provider]) -> None:
        self._name = name
        self._make = make
        self._provider: Provider | None = None
        self._last_warning = ""

    @property
    def name(self) -> str:
        return self._name

    async def describe(self) -> ProviderInfo:
        with adapter_errors(self._name):
            return _checked(await self._opened().describe(), ProviderInfo, "describe")

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        with adapter_errors(self._name):
            # The adapter may be another package's, so its types are checked where we use them.
            offers = list(await self._opened().offers(spec))
            return [_checked(offer, Offer, "offers") for offer in offers]

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        with adapter_errors(self._name):
            return await self._opened().submit(task, offer, attempt, payment)

    async def find(self, attempt: Attempt) -> JobStatus | None:
        with adapter_errors(self._name):
            return await self._opened().find(attempt)

    async def status(self, attempt: Attempt) -> JobStatus:
        with adapter_errors(self._name):
            return await self._opened().status(attempt)

    async def result(self, attempt: Attempt) -> Result:
        with adapter_errors(self._name):
            return await self._opened().result(attempt)

    async def cancel(self, attempt: Attempt) -> None:
        with adapter_errors(self._name):
            await self._opened().cancel(attempt)

    async def carry(self, message: Message) -> Message:
        with adapter_errors(self._name):
            return await self._opened().carry(message)

    async def close(self) -> None:
        """Close the provider if it was opened; log an error, so that others are closed, too."""
        if self._provider is None:
            return
        try:
            with adapter_errors(self._name):
                await self._provider.close()
        except AgentKitError as error:
            log.warning("%s", error)

    def _opened(self) -> Provider:
        """Return the provider; the first call makes it from its settings.

        Raises Unavailable, so that plans leave it out, for settings that cannot be used, such as a
        key that is not in the environment.
        """
        if self._provider is None:
            try:
                self._provider = self._make()
            except ConfigError as error:
                self._warn(error)
                raise Unavailable(
                    f"cannot be used: {error}", provider=self._name, hint=error.hint
                ) from error
        return self._provider

    def _warn(self, error: ConfigError) -> None:
        """Log, once for each reason, why a configured provider is left out."""
        if str(error) != self._last_warning:
            self._last_warning = str(error)
            log.warning("provider %s is left out: %s", self._name, error)


def _checked(value: Any, kind: type[T], verb: str) -> T:
    """Return what an adapter returned; raises TypeError for another type."""
    if not isinstance(value, kind):
        raise TypeError(f"{verb}() returned a {type(value).__name__}, not a {kind.__name__}")
    return value


@contextmanager
def adapter_errors(provider: str) -> Iterator[None]:
    """Turn what an adapter raises beside our own errors into AdapterFailed.

    The request may have been sent before, so the error is marked as `unknown`.
    """
    try:
        yield
    except AgentKitError:
        raise
    except TimeoutError as error:
        raise Unavailable("does not answer in time", provider=provider, unknown=True) from error
    except Exception as error:
        raise AdapterFailed(describe_bug(error), provider=provider, unknown=True) from error


def describe_bug(error: BaseException) -> str:
    """Return an error with the file and line that raised it, for the adapter's author."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"its adapter failed: {type(error).__name__}: {error}{place}"
