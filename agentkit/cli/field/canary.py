"""One canary: what it is called, what came of it, and how it says that it cannot be tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agentkit.errors import AgentKitError

Status = Literal["passed", "failed", "skipped"]


class CannotTry(AgentKitError):
    """A canary cannot be tried, or not brought to its end, now; the message says why."""


class Mistaken(AgentKitError):
    """Something is not as it has to be; the message says what."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a canary.

    `did` says in a sentence what it did, `why` the reason where it did not pass.  `paid` is in base
    units of the currency, `gas` in base units of the chain's coin, both out of the wallet.
    """

    name: str
    status: Status
    did: str = ""
    why: str = ""
    paid: int = 0
    gas: int = 0
    seconds: float = 0.0


def expect(is_so: bool, otherwise: str) -> None:
    """Raise Mistaken with a sentence unless something is as it has to be."""
    if not is_so:
        raise Mistaken(otherwise)
