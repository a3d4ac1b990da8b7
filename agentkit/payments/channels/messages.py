"""What the payer sends to a provider about a channel."""

from __future__ import annotations

from typing import Any

from agentkit.journal import records as r
from agentkit.keys.messages import Voucher
from agentkit.keys.signer import Signer
from agentkit.market.attempt import Attempt, Message
from agentkit.market.chain import Network

BODY_FIELDS = ("payer", "token", "close_delay", "salt", "cumulative", "tasks", "root", "voucher")
"""The fields of a stored channel that travel; `channels.body` reads them at the other end."""


class ChannelMessages:
    """Writes the messages of one wallet about its channels."""

    def __init__(self, signer: Signer, network: Network) -> None:
        self._signer = signer
        self._domain = network.channels_domain
        self._proofs: dict[str, str] = {}  # by channel

    def body(self, channel: r.Channel) -> dict[str, Any]:
        """Return a channel's terms and the newest voucher on it."""
        return {"channel": channel.channel} | {n: getattr(channel, n) for n in BODY_FIELDS}

    def body_with_proof(self, channel: r.Channel) -> dict[str, Any]:
        """Return `body` with the proof that the payer itself sends it."""
        return self.body(channel) | {"proof": self._proof(channel)}

    def voucher(self, attempt: Attempt, channel: r.Channel) -> Message:
        """Return the message that brings the newest voucher after a paid delivery."""
        return Message(
            rail="channel",
            provider=attempt.provider,
            provider_node=attempt.provider_node,
            verb="voucher",
            body=self.body(channel),
        )

    def request(self, channel: r.Channel, verb: str) -> Message:
        """Return a request about a whole channel: `best` or `close`."""
        return Message(
            rail="channel",
            provider=channel.provider,
            provider_node=channel.provider_node,
            verb=verb,
            body=self.body_with_proof(channel),
        )

    def _proof(self, channel: r.Channel) -> str:
        """Return the payer's signature under a voucher over nothing.

        It shows the provider who asks, and it is worth no money to whoever copies it.
        """
        proof = self._proofs.get(channel.channel)
        if proof is None:
            zero = Voucher(bytes.fromhex(channel.channel), cumulative=0, tasks=0)
            proof = self._signer.sign_voucher(self._domain, zero).hex()
            self._proofs[channel.channel] = proof
        return proof
