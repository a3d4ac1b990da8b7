"""What a provider node sells over x402: by `exact`, and over channels by `batch-settlement`."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.journal.journal import Journal
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, Network
from agentkit.payments.channels.claiming import Claiming, ClaimPolicy, Earnings
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.purchase import SellerTerms
from agentkit.payments.channels.seller import ChannelSeller
from agentkit.payments.x402.exact_seller import ExactSeller
from agentkit.payments.x402.paywall import SellerScheme
from agentkit.payments.x402.remote import Facilitator

WITHDRAW_DELAY = 3600
"""Seconds that a payer of this node has to wait for money that it takes back alone."""


class X402Sales:
    """The schemes by which a node is paid over x402, and the claims of what it earned so.

    The node's own key is the receiver's authorizer, so no facilitator can claim or refund alone.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        network: Network,
        signer: Signer,
        facilitator: str,
    ) -> None:
        """Be paid to the address of `signer`, through the facilitator at an address."""
        self._facilitator = Facilitator(facilitator)
        payee = signer.address
        terms = SellerTerms(payee=payee, authorizer=payee, delay=WITHDRAW_DELAY)
        mirror = ChannelMirror(journal, chain, delay=WITHDRAW_DELAY)
        self.schemes: Sequence[SellerScheme] = (
            ChannelSeller(
                journal, chain, network, self._facilitator, signer, terms=terms, mirror=mirror
            ),
            ExactSeller(journal, chain, network, self._facilitator, payee=payee),
        )
        self._claiming = Claiming(
            journal,
            chain,
            network,
            self._facilitator,
            signer,
            payee=payee,
            delay=WITHDRAW_DELAY,
            policy=ClaimPolicy(),
            mirror=mirror,
        )

    async def watch(self) -> None:
        """Claim what was earned before it can be taken back; the node calls this regularly."""
        await self._claiming.watch()

    async def earnings(self) -> Earnings:
        """Return what was earned over channels."""
        return Earnings.of(await self._claiming.channels())

    async def close(self) -> None:
        """Close the connections."""
        await self._facilitator.close()
