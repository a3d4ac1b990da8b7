"""Failover: asks one gateway after another until one answers, and retries with pauses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from agentkit.errors import StateCorrupt, StoreUnavailable
from agentkit.memory.arweave.endpoint import LONGEST_REST, Endpoint, NoAnswer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often all endpoints are asked, and the longest first pause between rounds in seconds."""

    rounds: int
    backoff: float


async def first_answer(
    call: Callable[[Endpoint], Awaitable[T]], endpoints: Sequence[Endpoint], patience: Patience
) -> T:
    """Return the first good answer to `call`, asking the endpoints in rounds.

    A round is repeated, after a random pause, while some failure may pass.  Raises StateCorrupt if
    every endpoint answered something that cannot be true, else StoreUnavailable; both name what
    each endpoint answered.
    """
    jitter = tenacity.wait_random_exponential(multiplier=patience.backoff, max=LONGEST_REST)

    def pause(state: tenacity.RetryCallState) -> float:
        return max(jitter(state), min(endpoint.rest for endpoint in endpoints))

    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(patience.rounds),
        wait=pause,
        retry=tenacity.retry_if_exception(_may_pass),
        reraise=True,
    )
    try:
        answer: T = await retrying(_round, call, endpoints)
    except NoAnswer as failure:
        raise StoreUnavailable(str(failure), hint="check memory.gateways") from failure
    return answer


async def _round(call: Callable[[Endpoint], Awaitable[T]], endpoints: Sequence[Endpoint]) -> T:
    """Ask endpoints one after another, the one with the fewest failures first, until one answers.

    Raises StateCorrupt if all of them answered something untrue, else NoAnswer.
    """
    problems: list[NoAnswer | StateCorrupt] = []
    for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.failures):
        try:
            return await call(endpoint)
        except NoAnswer as error:
            problems.append(error)
        except StateCorrupt as error:
            endpoint.failures += 1
            problems.append(StateCorrupt(f"{endpoint.url}: {error}"))
    reasons = "; ".join(map(str, problems))
    if all(isinstance(problem, StateCorrupt) for problem in problems):
        raise StateCorrupt(reasons)
    raise NoAnswer(reasons, passing=any(map(_may_pass, problems)))


def _may_pass(problem: BaseException) -> bool:
    return isinstance(problem, NoAnswer) and problem.passing
