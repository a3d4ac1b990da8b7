"""Trying again, in one place: back-off with jitter, and never sooner than a provider asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from agentkit.errors import RateLimited

FIRST_WAIT, MOST_WAIT = 0.15, 5.0
"""Seconds around which the first wait lies, and above which none grows by itself."""

Sleep = Callable[[float], Awaitable[None]]
Worth = Callable[[BaseException], bool]

_jittered = wait_random_exponential(multiplier=FIRST_WAIT, min=FIRST_WAIT / 3, max=MOST_WAIT)


def again(retries: int, worth: Worth, sleep: Sleep) -> AsyncRetrying:
    """Return what repeats a block up to `retries` times while its error is `worth` it.

    Waits by `sleep`, for as long as RateLimited asks if that is longer.
    """
    return AsyncRetrying(
        stop=stop_after_attempt(1 + retries),
        retry=retry_if_exception(worth),
        wait=_wait,
        sleep=sleep,
        reraise=True,
    )


def again_for(seconds: float, worth: Worth, sleep: Sleep) -> AsyncRetrying:
    """Return what repeats a block for some seconds while its error is `worth` it."""
    return again(0, worth, sleep).copy(stop=stop_after_delay(seconds))


def asked_to_wait(error: BaseException | None) -> float:
    """Return the seconds that a provider asks to be left alone."""
    return error.retry_after if isinstance(error, RateLimited) else 0.0


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_jittered(state), asked_to_wait(error))
