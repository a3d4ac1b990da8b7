"""The scheme `exact` as a facilitator settles it: one transfer by EIP-3009.

Settling is idempotent by authorization and the server's key (`Requirement.with_key`): asked again
it is the same transaction, whatever died between.  A server with another key is told that the
payment did not settle, so that two servers cannot both be shown it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agentkit.errors import IntentMismatch, ProtocolBroken, SettlementFailed
from agentkit.journal.journal import Journal
from agentkit.market.chain import Network
from agentkit.market.seams import Transaction
from agentkit.market.x402 import Presented, Requirement, Settled, Verified
from agentkit.payments import abi
from agentkit.payments.facilitator.gas import MOST_GAS
from agentkit.payments.facilitator.sdk import LateScheme, exact_scheme, verified_by
from agentkit.payments.facilitator.tries import Tries
from agentkit.payments.sender import Sender
from agentkit.payments.x402.proof import ExpectedTransfer, has_moved

log = logging.getLogger(__name__)


class ExactSettling:
    """Settles payments by `exact`; see `payments.facilitator.service.Settling`."""

    def __init__(self, journal: Journal, sender: Sender, network: Network, address: str) -> None:
        """Settle through `sender`, whose address is `address`."""
        self._journal = journal
        self._network = network
        self._sender = sender
        self._sdk = LateScheme(lambda: exact_scheme(network, address))

    @property
    def scheme(self) -> str:
        return "exact"

    @property
    def extra(self) -> Mapping[str, Any]:
        return {}

    async def verify(self, payment: Mapping[str, Any], requirement: Requirement) -> Verified:
        """Return whether a payment would settle; raises StoreUnavailable, ProtocolBroken."""
        return await self._verify(_presented(payment), requirement)

    async def settle(self, payment: Mapping[str, Any], requirement: Requirement) -> Settled:
        """Put a payment on the chain, once; raises StoreUnavailable (the same goes on from here).

        Success is what the token logged, not that a transaction was mined.
        """
        presented = _presented(payment)
        transfer = ExpectedTransfer.of(presented.payload.authorization)
        prefix = f"x402:{presented.payload.authorization.key}:"
        tries = await self._journal.commit(lambda tx: Tries.of(tx, prefix))
        if tries.is_new:
            verified = await self._verify(presented, requirement)
            if not verified.is_valid:
                return self._failed(transfer, verified.invalid_reason or "invalid_payload")

        def check_unsettled(tx: Transaction) -> None:
            if not Tries.of(tx, prefix).is_new:
                raise IntentMismatch("the authorization was settled for somebody else")

        try:
            receipt = await self._sender.send(
                f"{prefix}{tries.failed}:{requirement.key}",
                self._network.token,
                _transfer_call(presented),
                check=check_unsettled,
                most_gas=MOST_GAS,
            )
        except (SettlementFailed, IntentMismatch) as error:
            log.warning("payment %s did not settle: %s", prefix, error)
            return self._failed(transfer, "transaction_failed")
        if not has_moved(receipt, self._network, transfer):
            return self._failed(transfer, "transfer_event_mismatch")
        return Settled(
            success=True,
            transaction=receipt.transaction,
            network=self._network.id,
            payer=transfer.payer,
            amount=str(transfer.units),
        )

    # -- inside ----------------------------------------------------------------------------------

    async def _verify(self, presented: Presented, requirement: Requirement) -> Verified:
        if not requirement.payable_on(self._network):
            return Verified(is_valid=False, invalid_reason="unsupported_payment_kind")
        return await verified_by(self._sdk, presented.document(), requirement)

    def _failed(self, transfer: ExpectedTransfer, reason: str) -> Settled:
        """Return that a payment did not settle; `reason` is an error code of the protocol."""
        return Settled(
            success=False,
            transaction="",
            network=self._network.id,
            payer=transfer.payer,
            error_reason=reason,
        )


def _presented(payment: Mapping[str, Any]) -> Presented:
    """Return a payment by `exact`; raises ProtocolBroken for anything else."""
    try:
        return Presented.model_validate(payment)
    except ValidationError as error:
        raise ProtocolBroken("this is not a payment by 'exact'") from error


def _transfer_call(presented: Presented) -> bytes:
    """Return the token call that uses an authorization (EIP-3009)."""
    authorization = presented.payload.authorization
    v, r_, s = abi.vrs(bytes.fromhex(presented.payload.signature[2:]))
    if v < 2:  # some wallets write 0 or 1 where the ecrecover precompile wants 27 or 28
        v += 27
    return abi.encode(
        abi.MOVE,
        authorization.sender,
        authorization.to,
        int(authorization.value),
        int(authorization.valid_after),
        int(authorization.valid_before),
        bytes.fromhex(authorization.nonce[2:]),
        v,
        r_,
        s,
    )
