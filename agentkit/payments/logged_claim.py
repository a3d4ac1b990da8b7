"""Reads what the contract `AgentChannels` logged when a payee claimed."""

from __future__ import annotations

from typing import NamedTuple

from agentkit.errors import ProtocolBroken
from agentkit.keys import messages as m
from agentkit.payments import abi


class LoggedClaim(NamedTuple):
    """A payment out of a channel, as the contract's event `Claimed` logs it; amounts in units."""

    amount: int
    cumulative: int
    tasks: int
    root: bytes

    @classmethod
    def of(cls, data: bytes) -> LoggedClaim:
        """Read the data of a `Claimed` log; raises ProtocolBroken unless it is four words."""
        words = abi.numbers(data)
        if len(words) != 4:
            raise ProtocolBroken("the chain shows a claim that cannot be read")
        return cls(words[0], words[1], words[2], m.word(words[3]))
