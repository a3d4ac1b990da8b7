"""One canary: what it is called, what came of it, and how it says that it cannot be tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from agentkit.display.text import one_line
from agentkit.errors import AgentKitError

Status = Literal["passed", "failed", "skipped"]


def _is_one_line(text: str) -> str:
    if one_line(text) != text:
        raise ValueError("it is not one line of plain text")
    return text


Line = Annotated[str, Field(max_length=1000), AfterValidator(_is_one_line)]
"""A text of a report: what is shown of one must not paint over the rest, or add lines to it."""

Units = Annotated[int, Field(ge=0, lt=2**128)]
Seconds = Annotated[float, Field(ge=0, le=10**9)]


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

    name: Line
    status: Status
    did: Line = ""
    why: Line = ""
    paid: Units = 0
    gas: Units = 0
    seconds: Seconds = 0.0


def expect(is_so: bool, otherwise: str) -> None:
    """Raise Mistaken with a sentence unless something is as it has to be."""
    if not is_so:
        raise Mistaken(otherwise)
