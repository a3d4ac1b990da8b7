"""The terms of a channel that is paid on delivery, as payer and payee read them.

It is a channel of x402 `batch-settlement` whose salt says that vouchers come after deliveries: the
scheme's own rule, a voucher with each request, does not hold on it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from agentkit.journal import records as r
from agentkit.keys.channel_messages import ChannelConfig
from agentkit.market.batch_settlement import Config
from agentkit.market.chain import Network

CLOSE_DELAY = 3600
"""Seconds a provider has left to claim after a payer takes its money back alone."""

TAG = b"delivery"
"""How the salt of a channel that is paid on delivery begins."""


@dataclass(frozen=True, slots=True)
class ChannelTerms:
    """The terms that identify a channel.

    Payer and payee sign with their own keys: vouchers the one, claims and refunds the other.
    """

    payer: str
    payee: str
    token: str
    close_delay: int
    salt: str

    @classmethod
    def of(cls, row: r.Channel | r.BookedChannel, payee: str) -> ChannelTerms:
        """Return the terms of a stored channel."""
        return cls(
            payer=row.payer,
            payee=payee,
            token=row.token,
            close_delay=row.close_delay,
            salt=row.salt,
        )

    @property
    def config(self) -> ChannelConfig:
        """The terms as the contract has them."""
        return ChannelConfig(
            payer=self.payer,
            payer_authorizer=self.payer,
            receiver=self.payee,
            receiver_authorizer=self.payee,
            token=self.token,
            withdraw_delay=self.close_delay,
            salt=bytes.fromhex(self.salt),
        )

    @property
    def wire(self) -> Config:
        """The terms as they travel to a facilitator."""
        return Config.of(self.config)

    def id(self, network: Network) -> str:
        """Return the channel's id on a network, as 64 hex digits."""
        return self.config.id(network.settlement_domain).hex()


def salt_of(random: bytes) -> str:
    """Return the salt, in hex, of a channel paid on delivery; `random` are 32 bytes."""
    return (TAG + random[len(TAG) :]).hex()


def is_on_delivery(config: ChannelConfig) -> bool:
    """Return whether a channel is paid on delivery, and by no request of the scheme's own."""
    return config.salt.startswith(TAG)


def waiting_until(closes_at: int) -> str:
    """Return in words from when on the rest of a channel can be taken; `closes_at` as unix time."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(closes_at))
    return f"asked for on chain, comes back by `agentkit wallet close` from {when} on"
