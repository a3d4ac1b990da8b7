"""A facilitator of our own: each scheme checks and settles its payments, once.

Settling is idempotent: what is asked again is the same transaction, whatever died between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from agentkit.errors import ProtocolBroken
from agentkit.journal.journal import Journal
from agentkit.keys.signer import Signer
from agentkit.market.chain import ChainClient, Network
from agentkit.market.x402 import VERSION, Requirement, Settled, Verified
from agentkit.money import Money
from agentkit.payments.facilitator.channels import ChannelSettling
from agentkit.payments.facilitator.escrow import EscrowSettling
from agentkit.payments.facilitator.exact import ExactSettling
from agentkit.payments.facilitator.upto import UptoSettling
from agentkit.payments.sender import Sender


class Settling(Protocol):
    """A scheme as a facilitator settles it; `payment` is JSON of a stranger."""

    @property
    def scheme(self) -> str:
        """The scheme's name in x402."""

    @property
    def extra(self) -> Mapping[str, Any]:
        """What `/supported` says of it beside its name."""

    async def verify(self, payment: Mapping[str, Any], requirement: Requirement) -> Verified:
        """Return whether a payment would settle; raises StoreUnavailable, ProtocolBroken."""

    async def settle(self, payment: Mapping[str, Any], requirement: Requirement) -> Settled:
        """Put a payment on the chain, once.

        Raises StoreUnavailable (the same goes on from here) and ProtocolBroken.
        """


class FacilitatorService:
    """Verifies and settles payments in one currency on one chain; `signer` pays for the gas.

    What moves less than `least` on channels or out of escrow is refused: it is not worth its gas.
    Raises MissingExtra when it is made without the SDK.
    """

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        signer: Signer,
        network: Network,
        *,
        gas_limit: Money | None = None,
        least: Money | None = None,
    ) -> None:
        """Settle with `signer` and remember in `journal` what was sent."""
        self._network = network
        self._signer = signer
        sender = self._sender = Sender(journal, chain, signer, network, gas_limit)
        schemes: list[Settling] = [
            ExactSettling(journal, sender, network, signer.address),
            ChannelSettling(journal, chain, sender, network, signer.address, least=least),
            UptoSettling(journal, sender, network, signer.address),
        ]
        if network.escrow:
            schemes.append(EscrowSettling(journal, chain, sender, network, least=least))
        self._schemes = {scheme.scheme: scheme for scheme in schemes}

    async def recover(self) -> None:
        """Bring settlements that an earlier process left to their end."""
        await self._sender.recover()

    def supported(self) -> dict[str, Any]:
        """Return what this facilitator can settle."""
        kinds = [
            {"x402Version": VERSION, "scheme": name, "network": self._network.id, **scheme.extra}
            for name, scheme in self._schemes.items()
        ]
        return {"kinds": kinds, "extensions": [], "signers": {"eip155:*": [self._signer.address]}}

    async def verify(self, payment: Mapping[str, Any], requirement: Requirement) -> Verified:
        """Return whether a payment would settle; raises StoreUnavailable, ProtocolBroken."""
        return await self._scheme(requirement).verify(payment, requirement)

    async def settle(self, payment: Mapping[str, Any], requirement: Requirement) -> Settled:
        """Put a payment on the chain, once.

        Raises StoreUnavailable (the same goes on from here), ProtocolBroken, InsufficientFunds
        and OverBudget (for gas).
        """
        return await self._scheme(requirement).settle(payment, requirement)

    def _scheme(self, requirement: Requirement) -> Settling:
        scheme = self._schemes.get(requirement.scheme)
        if scheme is None:
            names = " and ".join(repr(name) for name in self._schemes)
            raise ProtocolBroken(f"this facilitator settles {names}")
        return scheme
