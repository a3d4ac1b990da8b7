"""The payer's end of a channel: booked from the chain, or forced where the provider is silent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from agentkit.errors import ProtocolBroken, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market import tree
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.channels.terms import (
    CLOSED,
    CONFIG,
    ChannelTerms,
    LoggedClaim,
    closing_at,
    deposit_of,
    logged,
    waiting_until,
)
from agentkit.payments.sender import Sender


@dataclass(frozen=True, slots=True)
class _FinalState:
    """How a channel was closed.

    `claimed` in all and `refunded`, in units; `tasks` and `root` as the last claim's voucher had
    them.
    """

    claimed: int
    refunded: int
    tasks: int
    root: bytes


class ChannelCloser:
    """Closes the channels of one wallet and books what came back."""

    def __init__(
        self, journal: Journal, chain: ChainClient, network: Network, sender: Sender
    ) -> None:
        """Take the sender's final `requestClose` transactions into the books from here on."""
        self._journal = journal
        self._chain = chain
        self._network = network
        self._sender = sender
        sender.on_final["requestClose"] = self._book_close_request

    async def close_without_provider(self, channel_id: str) -> str:
        """Take the rest of a channel back although its provider does not answer.

        The contract protects the provider: the payer first calls `requestClose`, and `finishClose`
        only after a delay in which the provider may still claim (AgentChannels.vy, closeDelay).
        So this is called at least twice.  Returns "closed", in words from when on the rest can be
        taken, or "" when there is no such open channel.
        """
        channel = await self._journal.commit(lambda tx: tx.get(r.Channel, channel_id))
        if channel is None or not channel.open:
            return ""

        closes_at = await closing_at(self._chain, self._network, channel_id)
        if closes_at == 0:
            await self._send("requestClose", channel)
            return waiting_until(await closing_at(self._chain, self._network, channel_id))
        if closes_at != CLOSED and closes_at > time.time():
            return waiting_until(closes_at)
        if closes_at != CLOSED:
            await self._send("finishClose", channel)

        # The provider may have closed it first, so the chain says which transaction did.
        closed_by = await self._closing_transaction(channel)
        await self.book_close({"channel": channel_id, "transaction": closed_by})
        return "closed"

    async def book_close(self, body: dict[str, Any]) -> None:
        """Book the end of a channel as the chain shows it, once.

        `body` names the channel and the transaction that closed it, by our own account or the
        provider's.  Raises ProtocolBroken when the chain does not show that close.
        """
        channel_id = str(body.get("channel", ""))
        transaction = str(body.get("transaction", ""))
        final = await self._final_state(channel_id, transaction)
        currency = self._network.currency
        claimed = Money(final.claimed, currency)

        def book(tx: Transaction) -> None:
            """Write the close down, after the voucher that it shows."""
            channel = tx.get(r.Channel, channel_id)
            if channel is None or not channel.open:
                return
            if final.claimed > channel.cumulative:
                # A restored journal lacks the voucher that was claimed.  The contract has checked
                # our signature under it, so it is ours.
                voucher = e.VoucherFound(
                    channel=channel_id,
                    cumulative=claimed,
                    tasks=final.tasks,
                    signature="",
                    root=final.root.hex(),
                    delivered=claimed,
                )
                tx.append(e.WALLET, voucher)
            refunded = Money(final.refunded, currency)
            closed = e.ChannelClosed(channel=channel_id, claimed=claimed, refunded=refunded)
            tx.append(e.WALLET, closed)

        await self._journal.commit(book)

    # -- inside ----------------------------------------------------------------------------------

    async def _send(self, function: str, channel: r.Channel) -> None:
        """Call `requestClose` or `finishClose` on a channel, exactly once."""
        data = ChannelTerms.of(channel, channel.payee).call(f"{function}({CONFIG})")
        await self._sender.send(f"{function}:{channel.channel}", self._network.channels, data)

    def _book_close_request(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Book from when on a channel's rest can be taken, as the contract logged it."""
        channel = intent.split(":")[1]
        logs = logged(receipt, self._network, abi.CLOSE_REQUESTED, channel)
        if not logs:
            raise SettlementFailed(f"transaction {receipt.transaction} requested no close")
        requested = e.ChannelCloseRequested(channel=channel, closes_at=abi.numbers(logs[0])[0])
        tx.append(e.WALLET, requested)

    async def _closing_transaction(self, channel: r.Channel) -> str:
        """Return the transaction that closed a channel, whoever sent it."""
        topics: list[bytes | None] = [abi.CLOSED, bytes.fromhex(channel.channel)]
        head = await self._chain.head()
        logs = await self._chain.logs(self._network.channels, topics, first=0, last=head)
        if not logs:
            raise ProtocolBroken(
                f"the chain does not show that channel {channel.channel[:12]} was closed"
            )
        return logs[-1].transaction

    async def _final_state(self, channel_id: str, transaction: str) -> _FinalState:
        """Return how a transaction closed a channel, from the contract's own logs.

        A channel may be closed without a claim in the same transaction; then no voucher is shown.
        """
        receipt = await self._chain.receipt(transaction)
        closes: list[bytes] = []
        claims: list[bytes] = []
        if receipt and receipt.succeeded:
            closes = logged(receipt, self._network, abi.CLOSED, channel_id)
            claims = logged(receipt, self._network, abi.CLAIMED, channel_id)
        if not closes:
            raise ProtocolBroken(
                f"the chain does not show that channel {channel_id[:12]} was closed"
            )

        # The contract keeps the claimed total after a close; earlier claims count in it, too.
        _, claimed = await deposit_of(self._chain, self._network, channel_id)
        claim = LoggedClaim.of(claims[-1]) if claims else None
        return _FinalState(
            claimed=claimed,
            refunded=abi.numbers(closes[-1])[0],
            tasks=claim.tasks if claim else 0,
            root=claim.root if claim else tree.EMPTY,
        )
