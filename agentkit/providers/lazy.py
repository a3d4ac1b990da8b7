"""Providers that are opened when they are first used, and adapters whose bugs are told as such."""

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
    """A provider by its settings: what is wrong with them stops this one and no other.

    Its adapter may be another package's.  Whatever it raises beside our errors becomes
    AdapterFailed, which says where that was.
    """

    def __init__(self, name: str, make: Callable[[], Provider]) -> None:
        self._name, self._make = name, make
        self._provider: Provider | None = None
        self._said = ""

    @property
    def name(self) -> str:
        return self._name

    async def describe(self) -> ProviderInfo:
        with adapter_errors(self._name):
            return _checked(await self._opened().describe(), ProviderInfo, "describe")

    async def offers(self, spec: TaskSpec) -> Sequence[Offer]:
        with adapter_errors(self._name):
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
        """Close what was opened; a bug in that is logged, because others are still to be closed."""
        if self._provider is None:
            return
        try:
            with adapter_errors(self._name):
                await self._provider.close()
        except AgentKitError as error:
            log.warning("%s", error)

    def _opened(self) -> Provider:
        """Return the provider, made from its settings at the first use.

        Raises Unavailable, which leaves it out, for settings that cannot be used, such as a key
        that is not in the environment.
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
        """Say once why a provider that somebody configured is left out."""
        if str(error) != self._said:
            self._said = str(error)
            log.warning("provider %s is left out: %s", self._name, error)


def _checked(value: Any, kind: type[T], verb: str) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{verb}() returned a {type(value).__name__}, not a {kind.__name__}")
    return value


@contextmanager
def adapter_errors(provider: str) -> Iterator[None]:
    """Turn what an adapter raises beside our own errors into AdapterFailed.

    Nobody can say what the provider was asked to do, so the error is marked as unknown.
    """
    try:
        yield
    except AgentKitError:
        raise
    except TimeoutError as late:
        raise Unavailable("does not answer in time", provider=provider, unknown=True) from late
    except Exception as error:
        raise AdapterFailed(describe_bug(error), provider=provider, unknown=True) from error


def describe_bug(error: BaseException) -> str:
    """Return an error with its innermost place, as a programmer looks for it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"its adapter failed: {type(error).__name__}: {error}{place}"
