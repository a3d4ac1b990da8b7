"""Settles jobs in escrow through a facilitator, so that a provider needs no gas money.

A kind of ours beside those of x402: the payload is a job with the acceptance that both have signed.
The contract takes them from anybody (`contracts/TaskEscrow.vy`).
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field

from agentkit.errors import ProtocolBroken, Refused, StoreUnavailable
from agentkit.keys.messages import Accept
from agentkit.market.batch_settlement import Units
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.x402 import VERSION, Payment402, Requirement, Wire
from agentkit.payments.escrow.terms import QUOTE, EscrowJob
from agentkit.payments.x402.remote import Facilitator

SCHEME = "escrow"
"""How this kind is called among those that a facilitator settles."""

SETTLE_WITHIN = 300
"""Seconds; x402 wants a time in every requirement, and what is signed here has none."""

SignatureHex = Annotated[str, Field(pattern=r"^[0-9a-f]{130}$")]


class Acceptance(Wire):
    """What is paid for a result, with both signatures: each alone is worth less in the contract."""

    pay: Units
    result: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    payer: SignatureHex
    provider: SignatureHex


class EscrowOrder(Wire):
    """What settles a job: an acceptance, or nothing once the time to judge is over."""

    job: dict[str, Any]
    acceptance: Acceptance | None = None

    @classmethod
    def agreed(cls, job: EscrowJob, accept: Accept, *, payer: bytes, provider: bytes) -> Self:
        """Return the order to settle a job by an acceptance with both signatures."""
        acceptance = Acceptance(
            pay=str(accept.pay),
            result=accept.result_hash.hex(),
            payer=payer.hex(),
            provider=provider.hex(),
        )
        return cls(job=job.document(), acceptance=acceptance)

    def read_job(self) -> EscrowJob:
        """Return the job; raises ProtocolBroken for anything else."""
        try:
            return EscrowJob.read(self.job)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ProtocolBroken("this is not a job in escrow") from error

    def call(self, network: Network) -> bytes:
        """Return the call of the contract that settles the job; raises ProtocolBroken."""
        job, accepted = self.read_job(), self.acceptance
        if accepted is None:
            return job.call(f"claimUnjudged({QUOTE})")
        word = Accept(job.id(network), int(accepted.pay), bytes.fromhex(accepted.result))
        signatures = bytes.fromhex(accepted.payer), bytes.fromhex(accepted.provider)
        return job.agreed_call(word, *signatures)


class EscrowPayment(Payment402):
    """An order as it goes to a facilitator."""

    payload: EscrowOrder


class EscrowRelay:
    """Has jobs settled by a facilitator, and reads on the chain what became of them."""

    def __init__(self, facilitator: Facilitator, chain: ChainClient, network: Network) -> None:
        self._facilitator = facilitator
        self._chain = chain
        self._network = network

    async def is_there(self) -> bool:
        """Return whether the facilitator answers, and settles jobs in escrow on this network."""
        try:
            return await self._facilitator.settles(SCHEME, self._network.id)
        except (StoreUnavailable, ProtocolBroken):
            return False

    async def settle(self, order: EscrowOrder) -> ChainReceipt:
        """Return the receipt of the transaction that settled a job.

        Raises Refused with the facilitator's reason, StoreUnavailable (it may be under way: the
        same order goes on) and ProtocolBroken.
        """
        quote = order.read_job().quote
        required = Requirement.on(
            self._network, quote.provider, quote.price, timeout=SETTLE_WITHIN
        ).model_copy(update={"scheme": SCHEME})
        payment = EscrowPayment(x402_version=VERSION, accepted=required, payload=order)
        done = await self._facilitator.settle(payment, required)
        if not done.success:
            raise Refused(f"the facilitator does not settle it: {done.error_reason or 'no reason'}")
        receipt = await self._chain.receipt(done.transaction)
        if receipt is None:
            raise ProtocolBroken("the facilitator names a transaction that the chain does not show")
        return receipt
