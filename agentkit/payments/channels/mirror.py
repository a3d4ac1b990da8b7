"""What a seller knows of its payers' channels: the chain's state, mirrored into its own books."""

from __future__ import annotations

import asyncio
import time

from agentkit.errors import ProtocolBroken, RateLimited
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.batch_settlement import Config
from agentkit.market.chain import ChainClient
from agentkit.payments.channels import contract

MAX_LOOKUPS = 8
"""Channels that are looked up on the chain at once: anybody can name new ones, at no cost."""

FRESH_SECONDS = 300.0
"""How long a look at the chain counts at most.

A withdrawal takes at least 15 minutes (the contract's smallest delay), so it is seen in time.
"""


class ChannelMirror:
    """Reads channels from the chain and keeps them in a node's journal."""

    def __init__(self, journal: Journal, chain: ChainClient, *, delay: int) -> None:
        """Read again what is older than a third of the withdraw `delay`, in seconds."""
        self._journal = journal
        self._chain = chain
        self._fresh = min(FRESH_SECONDS, delay / 3)
        self._lookups: dict[bytes, asyncio.Task[r.SoldChannel]] = {}

    async def known(self, channel: bytes, config: Config) -> r.SoldChannel | None:
        """Return a channel as it was read lately, None for one that holds nothing on the chain.

        Raises RateLimited while too many others are looked up, StoreUnavailable, ProtocolBroken.
        """
        stored = await self._journal.commit(lambda tx: tx.get(r.SoldChannel, channel.hex()))
        if stored is not None and time.time() - stored.synced < self._fresh:
            return stored
        if stored is None:
            on_chain = await self._look(channel)
            if not on_chain.balance:
                return None  # nothing is written for a channel that anybody may have made up
        return await self.read(channel, config)

    async def read(self, channel: bytes, config: Config) -> r.SoldChannel:
        """Read a channel from the chain and return it as stored; raises as `known`.

        Callers that ask at the same time share one look.
        """
        lookup = self._lookups.get(channel)
        if lookup is None:
            self._check_room()
            lookup = asyncio.create_task(self._read(channel, config))
            self._lookups[channel] = lookup
        return await asyncio.shield(lookup)

    # -- inside ----------------------------------------------------------------------------------

    async def _look(self, channel: bytes) -> contract.OnChain:
        self._check_room()
        return await contract.channel_on(self._chain, channel)

    def _check_room(self) -> None:
        if len(self._lookups) >= MAX_LOOKUPS:
            raise RateLimited("too many channels are looked up at once", retry_after=1.0)

    async def _read(self, channel: bytes, config: Config) -> r.SoldChannel:
        """Do the look that `read` shares."""
        try:
            on_chain = await contract.channel_on(self._chain, channel)
            mirrored = e.ChannelMirrored(
                channel=channel.hex(),
                config=config.document(),
                balance=on_chain.balance,
                total_claimed=on_chain.total_claimed,
                withdrawing=on_chain.withdrawing,
                withdraw_requested_at=on_chain.withdraw_requested_at,
                refund_nonce=on_chain.refund_nonce,
            )
            await self._journal.commit(lambda tx: tx.append(e.NODE, mirrored))
            stored = await self._journal.commit(lambda tx: tx.get(r.SoldChannel, channel.hex()))
            if stored is None:
                raise ProtocolBroken("the channel was not written")
            return stored
        finally:
            self._lookups.pop(channel, None)
