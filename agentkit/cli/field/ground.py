"""What the canaries work with: a wallet, two stalls, and looks at the chain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from agentkit.cli.field.canary import CannotTry, Mistaken
from agentkit.cli.field.purse import Purse
from agentkit.cli.field.stall import Stall
from agentkit.config import Settings
from agentkit.journal import records as r
from agentkit.market.chain import Network
from agentkit.payments.balance import token_balance
from agentkit.payments.channels import contract
from agentkit.payments.channels.contract import OnChain
from agentkit.payments.channels.lanes import LaneRail
from agentkit.wiring import Parts

PATIENCE = 60.0
"""Seconds that a look at the chain may lag behind what was done: nodes differ by some blocks."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 3.0


@dataclass(eq=False)
class Ground:
    """What every canary is given.

    The first stall answers to the end; the second takes a deposit and answers nothing after.
    `settings` and `config` are those of the wallet; `addresses` are of services that it uses, and
    may hold keys, so no report shows them.
    """

    settings: Settings
    config: Path | None
    parts: Parts
    purse: Purse
    stall: Stall
    silent: Stall
    addresses: tuple[str, ...] = ()
    passed: set[str] = field(default_factory=set)

    @property
    def network(self) -> Network:
        """The network that is tried."""
        return self.parts.network

    @property
    def lanes_rail(self) -> LaneRail:
        """The rail by which stalls are paid."""
        rail = self.parts.resources.rails["batch-settlement"]
        assert isinstance(rail, LaneRail)
        return rail

    def need(self, *names: str) -> None:
        """Raise CannotTry unless canaries that this one builds on have passed."""
        missing = [name for name in names if name not in self.passed]
        if missing:
            raise CannotTry(f"it builds on {missing[0]!r}, which did not pass")

    async def need_gas(self, what: str) -> None:
        """Raise CannotTry unless the wallet can and may pay for gas itself."""
        if not await self.parts.chain.balance(self.parts.signer.address):
            raise CannotTry(
                f"{what} needs gas of the wallet's own, and it has no coin of the chain"
            )
        if not self.network.test and self.settings.allowance.gas is None:
            raise CannotTry(f"{what} needs gas of the wallet's own: set allowance.gas")

    async def lanes(self, stall: Stall) -> list[r.Lane]:
        """Return our open channels with a stall."""
        every = await self.parts.journal.commit(lambda tx: tx.every(r.Lane))
        return [lane for lane in every if lane.payee == stall.payee and lane.open]

    async def lane(self, stall: Stall) -> r.Lane:
        """Return our one open channel with a stall; raises Mistaken."""
        lanes = await self.lanes(stall)
        if len(lanes) != 1:
            raise Mistaken(f"there are {len(lanes)} open channels, and one is expected")
        return lanes[0]

    async def run_on(self, lane: r.Lane) -> str:
        """Return the run that a channel is busy with, "" where it is free."""
        row = await self.parts.journal.commit(lambda tx: tx.get(r.Reservation, lane.attempt))
        return row.run if row else ""

    async def on_chain(self, lane: r.Lane) -> OnChain:
        """Return a channel as the contract has it."""
        return await contract.channel_on(self.parts.chain, bytes.fromhex(lane.channel))

    async def wealth(self, address: str = "") -> int:
        """Return what an address has of the currency, in base units; the wallet's by default."""
        owner = address or self.parts.signer.address
        return await token_balance(self.parts.chain, self.network, owner)

    async def becomes(self, look: Callable[[], Awaitable[int]], expected: int, what: str) -> None:
        """Wait until a number on the chain is what it has to be; raises Mistaken."""
        pause, until = FIRST_PAUSE, time.monotonic() + PATIENCE
        while (seen := await look()) != expected:
            if time.monotonic() > until:
                raise Mistaken(f"{what} is {seen} base units, and {expected} are expected")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
