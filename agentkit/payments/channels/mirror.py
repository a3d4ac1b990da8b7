"""What a seller knows of its payers' channels: the chain's state, mirrored into its own books."""

from __future__ import annotations

import asyncio
import time
from weakref import WeakValueDictionary

from agentkit.errors import RateLimited
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.batch_settlement import Config
from agentkit.market.chain import ChainClient
from agentkit.market.seams import Transaction
from agentkit.payments.channels import contract

MAX_LOOKUPS = 8
"""Unknown channels that are looked up at once: anybody can name new ones, at no cost."""

FRESH_SECONDS = 300.0
"""How long a look at the chain counts at most.

A withdrawal takes at least 15 minutes (the contract's smallest delay), so it is seen in time.
"""


class ChannelMirror:
    """Reads channels from the chain and keeps them in a node's journal.

    Whoever reads the same channels shares one: looks at one channel come one after the other, so
    that an older look is never written over a newer one.
    """

    def __init__(self, journal: Journal, chain: ChainClient, *, delay: int) -> None:
        """Read again what is older than a third of the withdraw `delay`, in seconds."""
        self._journal = journal
        self._chain = chain
        self._fresh = min(FRESH_SECONDS, delay / 3)
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._strangers = 0  # unknown channels that are looked up now

    async def known(self, channel: bytes, config: Config) -> r.SoldChannel | None:
        """Return a channel as it was read lately, None for one that holds nothing on the chain.

        Raises RateLimited while too many unknown ones are looked up, StoreUnavailable,
        ProtocolBroken.
        """
        stored = await self._stored(channel)
        if stored is not None and not self._is_old(stored):
            return stored
        found = await self.read(channel, config)
        return found if stored or found.balance else None

    async def read(self, channel: bytes, config: Config) -> r.SoldChannel:
        """Read a channel from the chain and return it as stored; raises as `known`.

        Nothing is written for an unknown channel without money: anybody may have made it up.
        """
        if await self._stored(channel) is not None:
            return await self._read(channel, config)
        if self._strangers >= MAX_LOOKUPS:
            raise RateLimited("too many channels are looked up at once", retry_after=1.0)
        self._strangers += 1
        try:
            return await self._read(channel, config)
        finally:
            self._strangers -= 1

    # -- inside ----------------------------------------------------------------------------------

    def _is_old(self, stored: r.SoldChannel) -> bool:
        return time.time() - stored.synced >= self._fresh

    async def _stored(self, channel: bytes) -> r.SoldChannel | None:
        return await self._journal.commit(lambda tx: tx.get(r.SoldChannel, channel.hex()))

    async def _read(self, channel: bytes, config: Config) -> r.SoldChannel:
        """Look at the chain and write down what it shows."""
        async with self._locks.setdefault(channel, asyncio.Lock()):
            on_chain = await contract.channel_on(self._chain, channel)
            mirrored = e.ChannelMirrored(
                channel=channel.hex(),
                # As it is hashed: a payer may write addresses in any case, and add fields.
                config=Config.of(config.terms()).document(),
                balance=on_chain.balance,
                total_claimed=on_chain.total_claimed,
                withdrawing=on_chain.withdrawing,
                withdraw_requested_at=on_chain.withdraw_requested_at,
                refund_nonce=on_chain.refund_nonce,
            )

            def write(tx: Transaction) -> r.SoldChannel:
                empty = r.SoldChannel(channel=mirrored.channel, config=mirrored.config)
                stored = tx.get(r.SoldChannel, mirrored.channel)
                # Whoever has a cent in a channel may have it looked at as often as it likes.
                is_news = stored is None or self._is_old(stored) or _differs(stored, mirrored)
                if is_news and (on_chain.balance or stored):
                    tx.append(e.NODE, mirrored)
                return tx.get(r.SoldChannel, mirrored.channel) or empty

            return await self._journal.commit(write)


def _differs(stored: r.SoldChannel, mirrored: e.ChannelMirrored) -> bool:
    """Return whether the chain shows a channel otherwise than it is stored."""
    shown = mirrored.model_dump(exclude={"channel", "config"})
    return any(getattr(stored, field) != value for field, value in shown.items())
