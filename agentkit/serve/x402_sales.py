"""What a provider node sells over x402: by `exact`, by `upto`, and over channels."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agentkit.errors import AgentKitError
from agentkit.journal.journal import Journal
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, Network
from agentkit.payments.channels.mirror import ChannelMirror
from agentkit.payments.channels.purchase import SellerTerms
from agentkit.payments.channels.seller import ChannelSeller
from agentkit.payments.channels.terms import CLOSE_DELAY
from agentkit.payments.upto.seller import UptoSeller
from agentkit.payments.x402.exact_seller import ExactSeller
from agentkit.payments.x402.paywall import SellerScheme
from agentkit.payments.x402.remote import Facilitator

log = logging.getLogger(__name__)


class X402Sales:
    """The schemes by which a node is paid over x402.

    The node's own key is the receiver's authorizer, so no facilitator can claim or refund alone.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        network: Network,
        signer: Signer,
        facilitator: Facilitator,
        *,
        mirror: ChannelMirror,
    ) -> None:
        """Be paid to the address of `signer`, through `facilitator`.

        `mirror` is that of all who read the node's channels.
        """
        payee = signer.address
        terms = SellerTerms(payee=payee, authorizer=payee, delay=CLOSE_DELAY)
        self._upto = UptoSeller(journal, chain, network, facilitator, payee=payee)
        self.schemes: Sequence[SellerScheme] = (
            ChannelSeller(journal, chain, network, facilitator, signer, terms=terms, mirror=mirror),
            self._upto,
            ExactSeller(journal, chain, network, facilitator, payee=payee),
        )

    async def watch(self) -> None:
        """Settle what was earned by `upto` before it can be taken back.

        The node calls this regularly, and when it starts.  What fails keeps nothing else from
        being looked after.
        """
        for step in (self._upto.prepare, self._upto.watch):
            try:
                await step()
            except AgentKitError as error:
                log.warning("%s: %s", step.__qualname__, error)
