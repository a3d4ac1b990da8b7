"""Jobs in escrow as a facilitator settles them, for providers without gas money.

A job is settled once by the contract itself, and its transaction here is named after it.  So asked
again it is the same transaction, and what another order says of the same job is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agentkit.errors import IntentMismatch, ProtocolBroken, SettlementFailed
from agentkit.journal.journal import Journal
from agentkit.market.chain import ChainClient, Network
from agentkit.market.x402 import Requirement, Settled, Verified
from agentkit.money import Money
from agentkit.payments.escrow import terms
from agentkit.payments.escrow.relay import SCHEME, EscrowOrder, EscrowPayment
from agentkit.payments.facilitator.gas import MOST_GAS
from agentkit.payments.facilitator.tries import Tries
from agentkit.payments.sender import Sender

log = logging.getLogger(__name__)


class EscrowSettling:
    """Settles jobs of the network's escrow; see `payments.facilitator.service.Settling`."""

    def __init__(
        self,
        journal: Journal,
        chain: ChainClient,
        sender: Sender,
        network: Network,
        *,
        least: Money | None = None,
    ) -> None:
        """Settle through `sender` jobs over at least `least`."""
        self._journal = journal
        self._chain = chain
        self._sender = sender
        self._network = network
        self._least = least.bind(network.currency).units if least else 1

    @property
    def scheme(self) -> str:
        return SCHEME

    @property
    def extra(self) -> Mapping[str, Any]:
        return {}

    async def verify(self, payment: Mapping[str, Any], requirement: Requirement) -> Verified:
        """Return whether a job is locked and worth its gas; the contract checks the rest."""
        reason = await self._refusal_of(_read(payment), requirement)
        return Verified(is_valid=not reason, invalid_reason=reason or None)

    async def settle(self, payment: Mapping[str, Any], requirement: Requirement) -> Settled:
        """Have the contract pay out a job, once."""
        order = _read(payment)
        job_id = order.read_job().id(self._network)
        prefix = f"x402-escrow:{job_id.hex()}:"
        tries = await self._journal.commit(lambda tx: Tries.of(tx, prefix))
        if tries.is_new and (reason := await self._refusal_of(order, requirement)):
            return self._failed(reason)
        call = order.call(self._network)
        try:
            receipt = await self._sender.send(
                f"{prefix}{tries.failed}", self._network.escrow, call, most_gas=MOST_GAS
            )
        except (SettlementFailed, IntentMismatch) as error:
            log.warning("job %s did not settle: %s", job_id.hex()[:12], error)
            return self._failed("escrow_transaction_failed")
        paid = terms.settled_in(receipt, self._network, job_id)
        if paid is None:
            return self._failed("escrow_settlement_missing")
        return Settled(
            success=True,
            transaction=receipt.transaction,
            network=self._network.id,
            payer=order.read_job().quote.payer,
            amount=str(paid[0]),
        )

    # -- inside ----------------------------------------------------------------------------------

    async def _refusal_of(self, order: EscrowOrder, requirement: Requirement) -> str:
        """Return why an order is not worth its gas, "" if it is; the price moves as a whole."""
        job = order.read_job()
        token = self._network.token.lower()
        is_ours = requirement.network == self._network.id and job.quote.token.lower() == token
        if not is_ours or not self._network.escrow:
            return "unsupported_payment_kind"
        if job.quote.price < self._least:
            return "escrow_below_least"
        state, _ = await terms.state_of(self._chain, self._network, job.id(self._network))
        return "" if state in (terms.FUNDED, terms.SUBMITTED) else "escrow_not_locked"

    def _failed(self, reason: str) -> Settled:
        return Settled(success=False, transaction="", network=self._network.id, error_reason=reason)


def _read(payment: Mapping[str, Any]) -> EscrowOrder:
    """Return the order in a payment; raises ProtocolBroken for anything else."""
    try:
        return EscrowPayment.model_validate(payment).payload
    except ValidationError as error:
        raise ProtocolBroken("this is not an order about a job in escrow") from error
