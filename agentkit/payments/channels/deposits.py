"""The payer's deposits: topping a channel up on chain, exactly once, and booking what arrived."""

from __future__ import annotations

import time
from contextlib import suppress

from agentkit.errors import IntentMismatch, SettlementFailed
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import ReceiveAuthorization, keccak, word
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.balance import check_balance
from agentkit.payments.budget import Exposure
from agentkit.payments.channels.terms import (
    CONFIG,
    ChannelTerms,
    deposit_of,
    logged,
)
from agentkit.payments.sender import Sender

AUTHORIZATION_LASTS = 3600
"""Seconds within which a top-up has to reach the chain."""

FUND = f"fundWithAuthorization({CONFIG},uint128,uint256,uint8,bytes32,bytes32)"
"""Moves the deposit by the payer's signature (EIP-3009), so no prior approval is needed."""


class Deposits:
    """Tops up the channels of one wallet.

    Its transactions have the intent `fund:CHANNEL:DEPOSITED_BEFORE:FAILED_BEFORE`.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        sender: Sender,
        *,
        exposure: Exposure,
    ) -> None:
        """Take the sender's final `fund` transactions into the books from here on."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._sender = sender
        self._exposure = exposure
        sender.on_final["fund"] = self._book_top_up

    async def top_up(self, channel: r.Channel, units: int) -> None:
        """Deposit `units` more.

        Does nothing if the books turn out to be older than the chain; the caller looks at the
        channel again.  Raises as `Sender.send`, except IntentMismatch, as then another process tops
        up; and InsufficientFunds when the wallet holds less.
        """
        if await self._is_older_than_chain(channel):
            return
        await check_balance(
            self._chain, self._network, self._signer.address, units, purpose="a deposit"
        )

        prefix = f"fund:{channel.channel}:{channel.deposited}:"
        # An intent that failed is at its end; counting them gives the next try a name of its own.
        earlier = await self._journal.commit(lambda tx: tx.every(r.EvmTransaction, prefix))
        failed = sum(row.final and not row.succeeded for row in earlier)

        # Another process of this wallet may have signed the same top-up for another sum.  Then
        # there is nothing to do here: the caller's next look finds what that one deposited.
        with suppress(IntentMismatch):
            await self._sender.send(
                f"{prefix}{failed}",
                self._network.channels,
                self._funding_call(channel, units),
                # In the transaction that signs, so that processes cannot pass the limit together.
                check=lambda tx: self._check_exposure(tx, channel.payee, units),
            )

    async def read_deposit(self, channel: r.Channel) -> None:
        """Book the part of a channel's deposit that a restored journal does not know of."""
        deposited, _ = await deposit_of(self._chain, self._network, channel.channel)

        def book_difference(tx: Transaction) -> None:
            stored = tx.get(r.Channel, channel.channel)
            if stored and deposited > stored.deposited:
                funded = self._funded(channel.channel, deposited - stored.deposited, deposited)
                tx.append(e.WALLET, funded)

        await self._journal.commit(book_difference)

    # -- inside ----------------------------------------------------------------------------------

    async def _is_older_than_chain(self, channel: r.Channel) -> bool:
        """Return whether our books are an old copy: the contract has seen more than they hold.

        Nothing may be signed below what the contract has seen.  So all channels become doubtful,
        as after a restore, until their payees have shown our newest vouchers.
        """
        deposited, claimed = await deposit_of(self._chain, self._network, channel.channel)

        def doubt_if_older(tx: Transaction) -> bool:
            """Make all channels doubtful if the books are older; returns whether they are."""
            top_ups = tx.every(r.EvmTransaction, f"fund:{channel.channel}:")
            if not all(top_up.final for top_up in top_ups):
                return False  # another process is topping up, so the chain may well be ahead
            stored = tx.get(r.Channel, channel.channel) or channel
            if deposited <= stored.deposited and claimed <= stored.cumulative:
                return False
            tx.append(e.WALLET, e.Restored(events=0))
            return True

        return await self._journal.commit(doubt_if_older)

    def _check_exposure(self, tx: Transaction, payee: str, units: int) -> None:
        """Raise OverBudget when `units` more would be too much to leave with one payee."""
        self._exposure.within(tx, payee, units, least=units)

    def _funding_call(self, channel: r.Channel, units: int) -> bytes:
        """Return the signed contract call that deposits `units`.

        The nonce is a function of the channel and its deposit so far: the token takes a nonce
        once (EIP-3009), so the same top-up cannot land twice.
        """
        nonce = keccak(bytes.fromhex(channel.channel) + word(channel.deposited))
        authorization = ReceiveAuthorization(
            payer=self._signer.address,
            payee=self._network.channels,
            units=units,
            valid_before=int(time.time()) + AUTHORIZATION_LASTS,
            nonce=nonce,
        )
        signature = self._signer.sign_authorization(self._network.token_domain, authorization)
        terms = ChannelTerms.of(channel, channel.payee)
        return terms.call(FUND, units, authorization.valid_before, *abi.vrs(signature))

    def _book_top_up(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Book a top-up as the contract logged it; raises SettlementFailed if it did not.

        A transaction can succeed without effect; only the contract's own log shows the deposit.
        """
        channel = intent.split(":")[1]
        logs = logged(receipt, self._network, abi.FUNDED, channel)
        if not logs:
            raise SettlementFailed(f"transaction {receipt.transaction} funded no channel")
        amount, deposited = abi.numbers(logs[0])
        tx.append(e.WALLET, self._funded(channel, amount, deposited))

    def _funded(self, channel: str, units: int, deposited: int) -> e.ChannelFunded:
        currency = self._network.currency
        return e.ChannelFunded(
            channel=channel,
            amount=Money(units, currency),
            deposited=Money(deposited, currency),
        )
