"""Reads what the contract `AgentChannels` logged when a payee claimed."""

from __future__ import annotations

from typing import NamedTuple

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
        """Read the data of a `Claimed` log; raises ProtocolBroken."""
        amount, cumulative, tasks, root = abi.exactly(4, data)
        return cls(amount, cumulative, tasks, m.word(root))
