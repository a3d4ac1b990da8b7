"""Finds channels that a wallet filled and its books do not know, by its key alone.

Each deposit moved the wallet's tokens to a collector, so the token's own log leads to the calls
that filled channels, and these name the terms.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from agentkit.errors import ProtocolBroken
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.channel_messages import ChannelConfig
from agentkit.market.batch_settlement import ERC3009_COLLECTOR, PERMIT2_COLLECTOR, Config
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.channels import contract

BLOCKS = 10_000
"""Blocks that are searched at once: public nodes answer for no more."""


@dataclass(frozen=True)
class Recovered:
    """What a search found: what is left in channels that were not known, by their payee.

    `unread` deposits were made by calls that do not show their channel, such as those in a batch.
    """

    left: dict[str, Money]
    unread: int


class ChannelRecovery:
    """Searches the chain for the channels of one wallet, and writes them down to be closed."""

    def __init__(self, journal: Journal, chain: ChainClient, network: Network, payer: str) -> None:
        """Look for channels that `payer` filled."""
        self._journal = journal
        self._chain = chain
        self._network = network
        self._payer = payer

    async def search(self, first: int) -> Recovered:
        """Search from block `first` on, and book what is found, closing: nothing is bought there.

        Raises StoreUnavailable, ProtocolBroken.
        """
        left: dict[str, Money] = {}
        seen: set[bytes] = set()
        unread = 0
        async for transaction in self._deposits(first):
            config = await self._filled_by(transaction)
            if config is None or config.payer.lower() != self._payer.lower():
                unread += config is None
                continue
            channel = config.id(self._network.settlement_domain)
            if channel in seen:
                continue
            seen.add(channel)
            units = await self._book(channel, config)
            if units:
                before = left.get(config.receiver, self._network.currency.zero())
                left[config.receiver] = before + Money(units, self._network.currency)
        return Recovered(left, unread)

    # -- inside ----------------------------------------------------------------------------------

    async def _deposits(self, first: int) -> AsyncIterator[str]:
        """Yield each transaction that moved tokens of the wallet to a collector."""
        head = await self._chain.head()
        for start in range(first, head + 1, BLOCKS):
            for collector in (ERC3009_COLLECTOR, PERMIT2_COLLECTOR):
                topics = [abi.TRANSFER, abi.as_word(self._payer), abi.as_word(collector)]
                end = min(start + BLOCKS - 1, head)
                logs = await self._chain.logs(self._network.token, [*topics], start, end)
                for transaction in dict.fromkeys(log.transaction for log in logs):
                    yield transaction

    async def _filled_by(self, transaction: str) -> ChannelConfig | None:
        """Return the terms of the channel that a transaction filled, None where it hides them.

        Who draws a deposit may do so by a contract of its own, in a call that names any terms.  So
        the contract has to have logged a deposit into the channel of these.
        """
        config = _config_in(await self._chain.data_of(transaction))
        receipt = await self._chain.receipt(transaction) if config else None
        if config is None or receipt is None:
            return None
        channel = config.id(self._network.settlement_domain)
        return config if contract.logged(receipt, contract.DEPOSITED, channel) else None

    async def _book(self, channel: bytes, config: ChannelConfig) -> int:
        """Write down a channel that is not known and not empty; returns what is left in it."""
        state = await contract.channel_on(self._chain, channel)
        name, currency = channel.hex(), self._network.currency
        left = Money(state.unclaimed, currency)

        def write(tx: Transaction) -> int:
            if not left or tx.get(r.Lane, name) or tx.get(r.Channel, name):
                return 0
            opened = e.LaneOpened(
                channel=name,
                provider=config.receiver,  # who it is beside its address is not known any more
                provider_node="",
                payee=config.receiver,
                lane=sum(lane.payee == config.receiver for lane in tx.every(r.Lane)),
                config=Config.of(config).document(),
            )
            stated = e.LaneStated(
                channel=name, charged=state.total_claimed, signed=0, balance=state.balance
            )
            for event in (opened, stated, e.LaneClosing(channel=name, amount=left)):
                tx.append(e.WALLET, event)
            return left.units

        return await self._journal.commit(write)


def _config_in(data: bytes) -> ChannelConfig | None:
    """Return the terms in a call that fills a channel, None for any other call."""
    try:
        return contract.config_in(data)
    except ProtocolBroken:
        return None
