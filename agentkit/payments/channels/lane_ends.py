"""The end of a lane: booked from the chain, or forced where the server is silent."""

from __future__ import annotations

from agentkit.errors import ProtocolBroken
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.batch_settlement import Config
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments.channels import contract
from agentkit.payments.channels.lane_networks import is_on
from agentkit.payments.channels.terms import waiting_until
from agentkit.payments.channels.withdrawal import Withdrawal
from agentkit.payments.sender import Sender


class LaneEnds:
    """Ends the lanes of one wallet and books what came back."""

    def __init__(
        self, journal: Journal, chain: ChainClient, network: Network, sender: Sender
    ) -> None:
        """Withdraw through `sender`, which needs gas money of the wallet's own."""
        self._journal = journal
        self._chain = chain
        self._network = network
        self._withdrawal = Withdrawal(chain, network, sender)

    async def book_end(self, channel: str) -> None:
        """Book that nothing is left in a lane, as the chain shows it; raises ProtocolBroken."""
        lane = await self._journal.commit(lambda tx: tx.get(r.Lane, channel))
        if lane is None or not is_on(lane, self._network):
            raise ProtocolBroken("it speaks of a channel that this wallet does not have")
        state = await contract.channel_on(self._chain, bytes.fromhex(channel))
        if state.unclaimed:
            raise ProtocolBroken(
                f"the chain does not show that channel {channel[:12]} was given back"
            )
        if lane.deposit:
            raise ProtocolBroken(f"a deposit into channel {channel[:12]} may still be drawn")
        currency = self._network.currency
        closed = e.LaneClosed(
            channel=channel,
            claimed=Money(state.total_claimed, currency),
            refunded=Money(max(0, lane.balance - state.total_claimed), currency),
        )

        def book(tx: Transaction) -> None:
            stored = tx.get(r.Lane, channel)
            if stored and stored.open:
                tx.append(e.WALLET, closed)

        await self._journal.commit(book)

    async def withdraw(self, channel: str) -> str:
        """Take the rest of a lane back although its server does not answer.

        Returns "closed", in words from when on the rest can be taken, or "" where there is no such
        open lane.
        """
        lane = await self._journal.commit(lambda tx: tx.get(r.Lane, channel))
        if lane is None or not lane.open or not is_on(lane, self._network):
            return ""
        until = await self._withdrawal.step(Config.model_validate(lane.config).terms())
        if until:
            withdrawn = e.LaneWithdrawn(channel=channel, until=until)
            await self._journal.commit(lambda tx: tx.append(e.WALLET, withdrawn))
            return waiting_until(until)
        if lane.deposit:
            return waiting_until(lane.valid_before)
        await self.book_end(channel)
        return "closed"
