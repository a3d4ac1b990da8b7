"""Trying again, in one place: back-off with jitter, and never sooner than a provider asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from agentkit.errors import RateLimited

FIRST_WAIT, MOST_WAIT = 0.15, 5.0
"""Seconds around which the first wait lies, and above which none grows by itself."""

PATIENT_SECONDS = 10.0
"""For how long being asked to wait is no failure: whoever asks for that will be done with it."""

Sleep = Callable[[float], Awaitable[None]]
Worth = Callable[[BaseException], bool]

_jittered = wait_random_exponential(multiplier=FIRST_WAIT, min=FIRST_WAIT / 3, max=MOST_WAIT)


def again(retries: int, worth: Worth, sleep: Sleep) -> AsyncRetrying:
    """Return what repeats a block up to `retries` times while its error is `worth` it.

    Waits by `sleep`, for as long as RateLimited asks if that is longer, and that is not counted as
    a failure for `PATIENT_SECONDS`.
    """
    return AsyncRetrying(
        stop=_after_failures(1 + retries),
        retry=retry_if_exception(worth),
        wait=_wait,
        sleep=sleep,
        reraise=True,
    )


def _after_failures(most: int) -> Callable[[RetryCallState], bool]:
    """Stop after so many failures; being asked to wait is none for some seconds."""
    failures = 0

    def stop(state: RetryCallState) -> bool:
        nonlocal failures
        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, RateLimited) or state.idle_for >= PATIENT_SECONDS:
            failures += 1
        return failures >= most

    return stop


def again_for(seconds: float, worth: Worth, sleep: Sleep) -> AsyncRetrying:
    """Return what repeats a block for some seconds while its error is `worth` it."""
    return again(0, worth, sleep).copy(stop=stop_after_delay(seconds))


def asked_to_wait(error: BaseException | None) -> float:
    """Return the seconds that a provider asks to be left alone."""
    return error.retry_after if isinstance(error, RateLimited) else 0.0


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_jittered(state), asked_to_wait(error))
