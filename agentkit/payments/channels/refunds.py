"""Gives payers of a seller's channels back what they have left."""

from __future__ import annotations

from agentkit.errors import RateLimited
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.channel_messages import ClaimBatch, Refund
from agentkit.keys.signer import Signer
from agentkit.market.batch_settlement import (
    Config,
    FacilitatorOrder,
    RefundOrder,
    SignedVoucher,
    requirement,
)
from agentkit.market.chain import Network
from agentkit.market.seams import Transaction
from agentkit.market.x402 import Requirement, Settled
from agentkit.payments.channels import contract
from agentkit.payments.x402.paywall import PAY_WITHIN
from agentkit.payments.x402.remote import Facilitation


def requirement_of(network: Network, payee: str, authorizer: str, delay: int) -> Requirement:
    """Return the requirement that goes with what a seller itself asks of its facilitator."""
    return requirement(
        network, payee, 0, authorizer=authorizer, delay=delay, timeout=PAY_WITHIN, min_deposit=0
    )


def claim_of(channel: r.SoldChannel) -> contract.Claim:
    """Return the claim of all that a channel is charged, under its newest voucher."""
    return contract.Claim(
        config=Config.model_validate(channel.config).terms(),
        channel=bytes.fromhex(channel.channel),
        ceiling=channel.ceiling,
        signature=bytes.fromhex(channel.signature.removeprefix("0x")),
        total=channel.claimable,
    )


class Refunds:
    """Orders refunds at a facilitator, signed with the key of `signer`."""

    def __init__(
        self, journal: Journal, network: Network, facilitator: Facilitation, signer: Signer
    ) -> None:
        """Write down in `journal` what was signed, before it leaves."""
        self._journal = journal
        self._network = network
        self._facilitator = facilitator
        self._signer = signer

    async def give_back(self, channel: r.SoldChannel, units: int, signature: str) -> Settled:
        """Claim what a channel is charged, and give `units` of the rest back, on the chain.

        `signature` is the payer's, under a voucher over what is charged.  What goes back is
        written down first: nothing is charged out of it any more, whatever dies between.

        Raises RateLimited if the channel was refunded since it was read: written down now, the
        refund would wait for a nonce that is gone, and be ordered for ever.
        """
        ordered = e.ChannelRefundOrdered(
            channel=channel.channel,
            amount=units,
            nonce=channel.refund_nonce,
            signature=signature,
        )

        def order(tx: Transaction) -> r.SoldChannel:
            stored = tx.get(r.SoldChannel, channel.channel) or channel
            if stored.refund_nonce != channel.refund_nonce:
                raise RateLimited("the channel was refunded meanwhile; ask again", retry_after=1.0)
            tx.append(e.NODE, ordered)
            return tx.get(r.SoldChannel, channel.channel) or channel

        return await self.send(await self._journal.commit(order))

    async def send(self, channel: r.SoldChannel) -> Settled:
        """Have the refund that is written down for a channel put on the chain.

        The same again is the same one: each nonce counts once.
        """
        domain = self._network.settlement_domain
        config = Config.model_validate(channel.config)
        claims = [claim_of(channel)] if channel.unclaimed else []
        refund = Refund(bytes.fromhex(channel.channel), channel.refund_nonce, channel.refunding)
        batch = ClaimBatch.of(claim.row for claim in claims)
        order = RefundOrder(
            channel_config=config,
            voucher=SignedVoucher(
                channel_id="0x" + channel.channel,
                max_claimable_amount=str(channel.ceiling),
                signature=channel.signature,
            ),
            amount=str(channel.refunding),
            refund_nonce=str(channel.refund_nonce),
            claims=[claim.wire() for claim in claims],
            refund_authorizer_signature="0x" + self._signer.sign_refund(domain, refund).hex(),
            claim_authorizer_signature=(
                "0x" + self._signer.sign_claims(domain, batch).hex() if claims else None
            ),
        )
        required = requirement_of(
            self._network, config.receiver, config.receiver_authorizer, config.withdraw_delay
        )
        return await self._facilitator.settle(FacilitatorOrder.of(required, order), required)
