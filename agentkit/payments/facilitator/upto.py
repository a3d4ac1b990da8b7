"""The scheme `upto` as a facilitator settles it: one transfer through Permit2, of what was used.

The payer names this facilitator in what it signs, so nobody else can settle.  Settling is
idempotent by the payer's nonce, the server's key and the amount: asked again it is the same
transaction, whatever died between.  Another amount for the same nonce is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agentkit.errors import IntentMismatch, ProtocolBroken, SettlementFailed
from agentkit.journal.journal import Journal
from agentkit.keys.permit2_messages import UPTO_PROXY
from agentkit.market import upto
from agentkit.market.chain import Network
from agentkit.market.seams import Transaction
from agentkit.market.upto import Permit2Authorization, UptoPayment
from agentkit.market.x402 import Requirement, Settled, Verified
from agentkit.payments.facilitator.gas import MOST_GAS
from agentkit.payments.facilitator.sdk import LateScheme, upto_scheme, verified_by
from agentkit.payments.facilitator.tries import Tries
from agentkit.payments.sender import Sender
from agentkit.payments.upto import contract

log = logging.getLogger(__name__)


class UptoSettling:
    """Settles payments by `upto`; see `payments.facilitator.service.Settling`."""

    def __init__(self, journal: Journal, sender: Sender, network: Network, address: str) -> None:
        """Settle through `sender`, whose address is `address`, which payers have to name."""
        self._journal = journal
        self._sender = sender
        self._network = network
        self._address = address
        self._sdk = LateScheme(lambda: upto_scheme(network, address))

    @property
    def scheme(self) -> str:
        return upto.SCHEME

    @property
    def extra(self) -> Mapping[str, Any]:
        return {"extra": {upto.FACILITATOR: self._address}}

    async def verify(self, payment: Mapping[str, Any], requirement: Requirement) -> Verified:
        """Return whether a payment would settle for its whole most; raises as `Settling`."""
        return await self._verify(_read(payment), requirement)

    async def settle(self, payment: Mapping[str, Any], requirement: Requirement) -> Settled:
        """Move what a requirement asks for, up to what the payer signed, once.

        Nothing is moved for an amount of 0; then nothing is brought to the chain.
        """
        presented = _read(payment)
        authorization = presented.payload.permit2_authorization
        units = int(requirement.amount)
        if units > int(authorization.permitted.amount):
            return self._failed(authorization, "invalid_upto_evm_payload_settlement_exceeds_amount")
        prefix = f"x402-upto:{authorization.key}:"
        tries = await self._journal.commit(lambda tx: Tries.of(tx, prefix))
        if tries.is_new:
            most = requirement.model_copy(update={"amount": authorization.permitted.amount})
            verified = await self._verify(presented, most)
            if not verified.is_valid:
                return self._failed(authorization, verified.invalid_reason or "invalid_payload")
            if not units:
                return self._settled(authorization, "", units)
        return await self._send(presented, requirement, prefix, tries.failed)

    # -- inside ----------------------------------------------------------------------------------

    async def _send(
        self, presented: UptoPayment, requirement: Requirement, prefix: str, failed: int
    ) -> Settled:
        """Bring a settlement to the chain; `failed` earlier ones of this nonce have reverted."""
        authorization = presented.payload.permit2_authorization
        units = int(requirement.amount)
        intent = f"{prefix}{failed}:{requirement.key}:{units}"

        def check_unsettled(tx: Transaction) -> None:
            if not Tries.of(tx, prefix).is_new:
                raise IntentMismatch("the nonce was settled for somebody else, or another amount")

        call = contract.settle_call(
            authorization.permit(), units, authorization.sender, presented.payload.signature_bytes
        )
        try:
            receipt = await self._sender.send(
                intent, UPTO_PROXY, call, check=check_unsettled, most_gas=MOST_GAS
            )
        except (SettlementFailed, IntentMismatch) as error:
            log.warning("payment %s did not settle: %s", prefix, error)
            return self._failed(authorization, "transaction_failed")
        payer, payee = authorization.sender, authorization.witness.to
        if not contract.has_moved(receipt, self._network, payer, payee, units):
            return self._failed(authorization, "transfer_event_mismatch")
        return self._settled(authorization, receipt.transaction, units)

    async def _verify(self, presented: UptoPayment, requirement: Requirement) -> Verified:
        if not upto.is_payable(requirement, self._network):
            return Verified(is_valid=False, invalid_reason="unsupported_payment_kind")
        return await verified_by(self._sdk, presented.document(), requirement)

    def _settled(
        self, authorization: Permit2Authorization, transaction: str, units: int
    ) -> Settled:
        return Settled(
            success=True,
            transaction=transaction,
            network=self._network.id,
            payer=authorization.sender,
            amount=str(units),
        )

    def _failed(self, authorization: Permit2Authorization, reason: str) -> Settled:
        """Return that a payment did not settle; `reason` is an error code of the protocol."""
        return Settled(
            success=False,
            transaction="",
            network=self._network.id,
            payer=authorization.sender,
            error_reason=reason,
        )


def _read(payment: Mapping[str, Any]) -> UptoPayment:
    """Return a payment by `upto`; raises ProtocolBroken for anything else."""
    try:
        return UptoPayment.model_validate(payment)
    except ValidationError as error:
        raise ProtocolBroken("this is not a payment by 'upto'") from error
