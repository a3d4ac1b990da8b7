"""The payer's deposits: signed once, durable before they leave, drawn by the payee, and booked.

The payee has its facilitator put a deposit on the chain, so the payer needs no gas.
"""

from __future__ import annotations

import secrets
import time

from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import ReceiveAuthorization
from agentkit.keys.signer import Signer
from agentkit.market.batch_settlement import ERC3009_COLLECTOR
from agentkit.market.chain import ChainClient, Network
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments.balance import check_unpromised, token_balance
from agentkit.payments.budget import Exposure
from agentkit.payments.channels import contract
from agentkit.payments.channels.messages import ADVANCE
from agentkit.payments.x402.proof import is_used

DEPOSIT_LASTS = 900
"""Seconds within which a deposit has to be drawn."""


class Deposits:
    """Fills the channels of one wallet that are paid on delivery."""

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        *,
        exposure: Exposure,
    ) -> None:
        """Sign deposits with `signer`, within `exposure`."""
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._network = network
        self._exposure = exposure

    async def sign(self, channel: r.Channel, units: int) -> r.Channel:
        """Sign a deposit of `units`, unless one is under way, and return the channel with it.

        Raises InsufficientFunds when the wallet holds less, OverBudget above the exposure.
        """
        balance = await token_balance(self._chain, self._network, self._signer.address)

        def write(tx: Transaction) -> r.Channel:
            stored = tx.get(r.Channel, channel.channel) or channel
            if stored.deposit:
                return stored  # another process of this wallet was quicker
            # In the transaction that signs, so that processes cannot pass the limit together.
            self._exposure.within(tx, stored.payee, units, least=units)
            check_unpromised(tx, self._network, balance, units)
            tx.append(e.WALLET, self._signed(stored, units))
            return tx.get(r.Channel, channel.channel) or stored

        return await self._journal.commit(write)

    async def reconcile(self) -> None:
        """Write down which deposits the chain shows as drawn, or as never to be drawn.

        One has expired once a final block is past its time; until then it may still be drawn.
        """
        channels = await self._journal.commit(lambda tx: tx.every(r.Channel))
        waiting = [channel for channel in channels if channel.deposit]
        if not waiting:
            return
        depth = max(self._network.finality, 1)
        final_block = max(0, await self._chain.head() - depth + 1)
        # Read before the authorizations, so that a use between the two reads is seen as a use.
        final_time = await self._chain.time(final_block)
        for channel in waiting:
            salt = int(channel.deposit_salt, 16)
            nonce = contract.erc3009_nonce(bytes.fromhex(channel.channel), salt)
            used = await is_used(self._chain, self._network, self._signer.address, nonce)
            if used or final_time >= channel.valid_before:
                await self._end(channel, drawn=used)

    async def read_deposit(self, channel: r.Channel) -> None:
        """Book the part of a channel's deposit that a restored journal does not know of."""
        on_chain = await contract.channel_on(self._chain, bytes.fromhex(channel.channel))

        def book_difference(tx: Transaction) -> None:
            stored = tx.get(r.Channel, channel.channel)
            if stored and on_chain.balance > stored.deposited:
                tx.append(e.WALLET, self._funded(stored, on_chain.balance))

        await self._journal.commit(book_difference)

    async def is_older_than_chain(self, channel: r.Channel) -> bool:
        """Return whether our books are an old copy: the contract has seen more than they hold.

        Nothing may be signed below what the contract has seen.  So all channels become doubtful,
        as after a restore, until their payees have shown our newest vouchers.
        """
        on_chain = await contract.channel_on(self._chain, bytes.fromhex(channel.channel))

        def doubt_if_older(tx: Transaction) -> bool:
            """Make all channels doubtful if the books are older; returns whether they are."""
            stored = tx.get(r.Channel, channel.channel) or channel
            if stored.deposit:
                return False  # another process is topping up, so the chain may well be ahead
            promised = stored.cumulative + ADVANCE
            if on_chain.balance <= stored.deposited and on_chain.total_claimed <= promised:
                return False
            tx.append(e.WALLET, e.Restored(events=0))
            return True

        return await self._journal.commit(doubt_if_older)

    # -- inside ----------------------------------------------------------------------------------

    def _signed(self, channel: r.Channel, units: int) -> e.TopUpSigned:
        """Return a signed deposit; it can land once."""
        # A count would not do: after a restore the same number may have been signed before.
        salt = secrets.randbits(256)
        authorization = ReceiveAuthorization(
            payer=self._signer.address,
            payee=ERC3009_COLLECTOR,
            units=units,
            valid_before=int(time.time()) + DEPOSIT_LASTS,
            nonce=contract.erc3009_nonce(bytes.fromhex(channel.channel), salt),
        )
        signature = self._signer.sign_authorization(self._network.token_domain, authorization)
        return e.TopUpSigned(
            channel=channel.channel,
            amount=Money(units, self._network.currency),
            deposit_salt=f"0x{salt:064x}",
            valid_before=authorization.valid_before,
            signature="0x" + signature.hex(),
        )

    async def _end(self, channel: r.Channel, *, drawn: bool) -> None:
        """Write the end of a deposit down, with what the channel then holds on the chain."""
        amount = Money(channel.deposit, self._network.currency)
        ended = e.TopUpEnded(channel=channel.channel, amount=amount, drawn=drawn)
        balance = 0
        if drawn:
            on_chain = await contract.channel_on(self._chain, bytes.fromhex(channel.channel))
            balance = on_chain.balance

        def write(tx: Transaction) -> None:
            stored = tx.get(r.Channel, channel.channel)
            if not stored or not stored.deposit or stored.deposit_salt != channel.deposit_salt:
                return  # somebody else has written it meanwhile
            tx.append(e.WALLET, ended)
            if balance > stored.deposited:
                tx.append(e.WALLET, self._funded(stored, balance))

        await self._journal.commit(write)

    def _funded(self, channel: r.Channel, deposited: int) -> e.ChannelFunded:
        currency = self._network.currency
        return e.ChannelFunded(
            channel=channel.channel,
            amount=Money(deposited - channel.deposited, currency),
            deposited=Money(deposited, currency),
        )
