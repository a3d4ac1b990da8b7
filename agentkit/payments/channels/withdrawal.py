"""What the contract lets a payer do alone, where the payee does not answer."""

from __future__ import annotations

import time

from agentkit.keys.channel_messages import ChannelConfig
from agentkit.market.chain import SETTLEMENT, ChainClient, Network
from agentkit.payments.channels import contract
from agentkit.payments.sender import Sender


class Withdrawal:
    """Takes the rest of channels back, step by step; each step costs gas of the wallet's own."""

    def __init__(self, chain: ChainClient, network: Network, sender: Sender) -> None:
        self._chain = chain
        self._network = network
        self._sender = sender

    async def step(self, config: ChannelConfig) -> int:
        """Do what is possible now; returns when the next step is, 0 once nothing is left.

        The contract protects the payee: the payer first asks, and takes only after a delay in
        which the payee may still claim.  So this is called at least twice.
        """
        channel = config.id(self._network.settlement_domain)
        state = await contract.channel_on(self._chain, channel)
        if not state.unclaimed:
            return 0  # whatever was asked for: the payee gave it back, or claimed it
        if not state.withdrawing:
            call = contract.withdraw_call(config, state.unclaimed)
            intent = f"withdraw:{channel.hex()}:{state.total_claimed}:{state.refund_nonce}"
            await self._sender.send(intent, SETTLEMENT, call)
            state = await contract.channel_on(self._chain, channel)
        if not state.withdrawing:
            return 0
        until = state.withdraw_requested_at + config.withdraw_delay
        if until > time.time():
            return until
        call = contract.finish_withdraw_call(config)
        intent = f"withdrawn:{channel.hex()}:{state.withdraw_requested_at}"
        await self._sender.send(intent, SETTLEMENT, call)
        return 0
