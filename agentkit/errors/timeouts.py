"""Stages of one try that took too long; each is its room's error too."""

from __future__ import annotations

from typing import ClassVar

from agentkit.errors.base import AgentKitError
from agentkit.errors.payment import SettlementFailed
from agentkit.errors.provider import Unavailable
from agentkit.errors.state import StoreUnavailable


class TimedOut(AgentKitError):
    """A stage of one try took longer than it may.  `seconds` is how long that was."""

    stage: ClassVar[str] = ""
    seconds: float

    def _say(self, seconds: float) -> str:
        self.seconds = seconds
        return f"{self.stage} took longer than {seconds:g} s"


class OffersTimedOut(Unavailable, TimedOut):
    """A provider did not repeat its offer in time."""

    stage = "asking for offers"

    def __init__(self, seconds: float, *, provider: str = "") -> None:
        super().__init__(self._say(seconds), provider=provider)


class SubmitTimedOut(Unavailable, TimedOut):
    """A provider did not take a task in time, or nobody knows whether it did."""

    stage = "handing the task over"

    def __init__(self, seconds: float, *, provider: str = "") -> None:
        super().__init__(self._say(seconds), provider=provider, unknown=True)


class ExecuteTimedOut(Unavailable, TimedOut):
    """A provider, or a function on this machine, did not come to a result in time."""

    stage = "execution"

    def __init__(self, seconds: float, *, provider: str = "") -> None:
        super().__init__(self._say(seconds), provider=provider, unknown=True)


class SettleTimedOut(SettlementFailed, TimedOut):
    """Money could not be put in place in time."""

    stage = "settling"

    def __init__(self, seconds: float) -> None:
        super().__init__(self._say(seconds))


class StoreTimedOut(StoreUnavailable, TimedOut):
    """An artifact could not be stored in time."""

    stage = "storing the result"

    def __init__(self, seconds: float) -> None:
        super().__init__(self._say(seconds))
