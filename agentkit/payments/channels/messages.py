"""What the payer sends to a provider about a channel."""

from __future__ import annotations

from typing import Any

from agentkit.journal import records as r
from agentkit.keys.channel_messages import ChannelVoucher, Order
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message
from agentkit.market.batch_settlement import (
    DepositFields,
    DepositPayload,
    Drawing,
    Erc3009,
    SignedVoucher,
)
from agentkit.market.chain import Network
from agentkit.payments.channels.terms import ChannelTerms

BODY_FIELDS = ("payer", "token", "close_delay", "salt", "cumulative", "tasks", "voucher")
"""The fields of a stored channel that travel; `channels.body` reads them at the other end."""

ADVANCE = 1
"""Base units that a deposit's voucher promises beyond what was delivered.

A facilitator takes no deposit whose voucher promises nothing new.  The next voucher covers it.
"""


class ChannelMessages:
    """Writes the messages of one wallet about its channels."""

    def __init__(self, signer: Signer, network: Network) -> None:
        self._signer = signer
        self._domain = network.settlement_domain
        self._proofs: dict[str, str] = {}  # by channel

    def body(self, channel: r.Channel) -> dict[str, Any]:
        """Return a channel's terms and the newest voucher on it."""
        return {"channel": channel.channel} | {n: getattr(channel, n) for n in BODY_FIELDS}

    def payment(self, channel: r.Channel, attempt: Attempt) -> dict[str, Any]:
        """Return `body` with the payer's order of an attempt."""
        order = Order(
            channel=bytes.fromhex(channel.channel),
            attempt=bytes.fromhex(attempt.id),
            at_most=attempt.at_most.units,
            request=bytes.fromhex(attempt.task),
        )
        return self.body(channel) | {"order": self._signer.sign_order(self._domain, order).hex()}

    def voucher(self, attempt: Attempt, channel: r.Channel) -> Message:
        """Return the message that brings the newest voucher after a paid delivery."""
        return Message(
            rail="channel",
            provider=attempt.provider,
            provider_node=attempt.provider_node,
            verb="voucher",
            body=self.body(channel),
        )

    def request(self, channel: r.Channel, verb: str, **more: Any) -> Message:
        """Return a request about a whole channel: `best`, `deposit` or `close`."""
        return Message(
            rail="channel",
            provider=channel.provider,
            provider_node=channel.provider_node,
            verb=verb,
            body=self.body(channel) | {"proof": self._proof(channel)} | more,
        )

    def deposit(self, channel: r.Channel) -> Message:
        """Return the message that has the payee draw the deposit that is signed for a channel."""
        voucher = ChannelVoucher(bytes.fromhex(channel.channel), channel.cumulative + ADVANCE)
        drawing = Erc3009(
            valid_after="0",
            valid_before=str(channel.valid_before),
            salt=channel.deposit_salt,
            signature=channel.authorization,
        )
        payload = DepositPayload(
            channel_config=ChannelTerms.of(channel, channel.payee).wire,
            voucher=SignedVoucher(
                channel_id="0x" + channel.channel,
                max_claimable_amount=str(voucher.ceiling),
                signature="0x" + self._signer.sign_channel_voucher(self._domain, voucher).hex(),
            ),
            deposit=DepositFields(
                amount=str(channel.deposit), authorization=Drawing(erc3009_authorization=drawing)
            ),
        )
        return self.request(channel, "deposit", deposit=payload.document())

    def _proof(self, channel: r.Channel) -> str:
        """Return the payer's signature under a voucher over nothing.

        It shows the provider who asks, and it is worth no money to whoever copies it.
        """
        proof = self._proofs.get(channel.channel)
        if proof is None:
            zero = ChannelVoucher(bytes.fromhex(channel.channel), 0)
            proof = self._signer.sign_channel_voucher(self._domain, zero).hex()
            self._proofs[channel.channel] = proof
        return proof
