"""The payer's end of a channel: booked from the chain, or forced where the provider is silent."""

from __future__ import annotations

from typing import Any

from agentkit.errors import ProtocolBroken
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments.channels import contract
from agentkit.payments.channels.terms import ChannelTerms, waiting_until
from agentkit.payments.channels.withdrawal import Withdrawal
from agentkit.payments.sender import Sender


class ChannelCloser:
    """Closes the channels of one wallet and books what came back."""

    def __init__(
        self, journal: Journal, chain: ChainClient, network: Network, sender: Sender
    ) -> None:
        """Withdraw through `sender`, which needs gas money of the wallet's own."""
        self._journal = journal
        self._chain = chain
        self._network = network
        self._withdrawal = Withdrawal(chain, network, sender)

    async def close_without_provider(self, channel: r.Channel) -> str:
        """Take the rest of a channel back although its provider does not answer.

        Returns "closed", or in words from when on the rest can be taken.
        """
        until = await self._withdrawal.step(ChannelTerms.of(channel, channel.payee).config)
        if until:
            requested = e.ChannelCloseRequested(channel=channel.channel, closes_at=until)
            await self._journal.commit(lambda tx: tx.append(e.WALLET, requested))
            return waiting_until(until)
        await self.book_close(channel)
        return "closed"

    async def book_close(self, channel: r.Channel) -> None:
        """Book that nothing is left in a channel, as the chain shows it, once.

        Raises ProtocolBroken when something is left there.
        """
        state = await contract.channel_on(self._chain, bytes.fromhex(channel.channel))
        if state.unclaimed:
            raise ProtocolBroken(
                f"the chain does not show that channel {channel.channel[:12]} was closed"
            )
        claimed = Money(state.total_claimed, self._network.currency)

        def book(tx: Transaction) -> None:
            """Write the close down, after the voucher that it shows."""
            stored = tx.get(r.Channel, channel.channel)
            if stored is None or not stored.open:
                return
            if claimed.units > stored.cumulative:
                tx.append(e.WALLET, found_claim(stored, claimed))
            refunded = Money(max(0, stored.deposited - claimed.units), claimed.asset)
            closed = e.ChannelClosed(channel=channel.channel, claimed=claimed, refunded=refunded)
            tx.append(e.WALLET, closed)

        await self._journal.commit(book)


def found_claim(channel: r.Channel, claimed: Money, **voucher: Any) -> e.VoucherFound:
    """Return the voucher that a claim shows and our books lack, as after a restore.

    The contract has checked our signature under it, so it is ours.
    """
    fields = {"tasks": channel.tasks, "root": ""} | voucher
    return e.VoucherFound(
        channel=channel.channel,
        cumulative=claimed,
        signature="",
        delivered=claimed,
        **fields,
    )
