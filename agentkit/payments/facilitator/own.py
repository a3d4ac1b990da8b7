"""A node that is its own facilitator: it puts its channels on the chain, and pays the gas."""

from __future__ import annotations

from agentkit.journal.journal import Journal
from agentkit.keys.signer import Signer
from agentkit.market.batch_settlement import MAX_ROWS
from agentkit.market.chain import ChainClient, Network
from agentkit.market.x402 import Payment402, Requirement, Settled, Verified
from agentkit.money import Money
from agentkit.payments.facilitator.channels import ChannelSettling
from agentkit.payments.sender import Sender

LEAST = Money.parse("0.01 USDC")
"""What a deposit or claim has to move on a real network: its gas would not be worth less."""


class OwnFacilitator:
    """Settles `batch-settlement` in this process; see `payments.x402.remote.Facilitation`."""

    def __init__(
        self, journal: Journal, chain: ChainClient, signer: Signer, network: Network
    ) -> None:
        """Settle with `signer`, and remember in `journal` what was sent."""
        sender = Sender(journal, chain, signer, network)
        least = None if network.test else LEAST
        self._settling = ChannelSettling(
            journal, chain, sender, network, signer.address, least=least
        )

    async def verify(self, payment: Payment402, requirement: Requirement) -> Verified:
        """Return whether a payment would settle."""
        return await self._settling.verify(payment.document(), requirement)

    async def settle(self, payment: Payment402, requirement: Requirement) -> Settled:
        """Put a payment on the chain; the same one again is the same settlement or none."""
        return await self._settling.settle(payment.document(), requirement)

    async def most_claims(self) -> int:
        """Return how many claims it takes in one call: as many as the contract."""
        return MAX_ROWS

    async def close(self) -> None:
        """Do nothing: there is no connection."""
