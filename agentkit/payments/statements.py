"""Checks what sellers signed about their sales (x402 `offer-receipt`), with nothing but the words.

An offer proves the terms, and a receipt that the seller was paid and served.  The payee itself has
to have signed; see `market.offer_receipt`.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from agentkit.market.offer_receipt import SignedOffer, SignedReceipt
from agentkit.market.rail_names import base_rail, chain_of
from agentkit.market.receipt import Receipt
from agentkit.market.x402 import Wire
from agentkit.payments.networks import usdc_on

NOT_STATED = (
    "by a seller's offer and receipt: what was charged of the most, for which request, on which"
    " channel, what was delivered, that two receipts of one second are two sales, and which token"
    " counts as USDC on a network that does not ship"
)
"""What these statements do not say, so that the payer's word stands alone for it."""

SCHEMES = {"x402": "exact", "batch-settlement": "batch-settlement", "upto": "upto"}
"""The scheme of x402 by which each rail pays."""

S = TypeVar("S", bound=Wire)


def statement_problems(receipt: Receipt, payer: str, token: str, network: str) -> list[str]:
    """Return what is wrong with the statements beside a receipt, a sentence for each problem.

    `token` and `network` are those of the bundle; a rail may say that it pays on another network.
    """
    statements = receipt.statements
    if not statements.offer and not statements.receipt:
        return []
    rail = receipt.attempt.rail
    if base_rail(rail) not in SCHEMES:
        return [f"no seller signs offers over {rail}"]
    if elsewhere := chain_of(rail):
        token, network = usdc_on(elsewhere), elsewhere

    problems: list[str] = []
    offer = _read(SignedOffer, statements.offer)
    if statements.offer:
        problems += _offer_problems(offer, receipt, token, network)
    signed = _read(SignedReceipt, statements.receipt)
    if statements.receipt:
        problems += _receipt_problems(signed, receipt, payer, network)
    if offer and signed and offer.payload.resource_url != signed.payload.resource_url:
        problems.append("the seller's offer and its receipt are for different addresses")
    return problems


def _offer_problems(
    offer: SignedOffer | None, receipt: Receipt, token: str, network: str
) -> list[str]:
    """Return why an offer is not the payee's offer of what was bought; any `token` if it is ""."""
    if offer is None:
        return ["the seller's offer cannot be read"]
    attempt, payload = receipt.attempt, offer.payload
    if offer.signer.lower() != attempt.payee.lower():
        return [f"the seller's offer is not signed by {attempt.payee}"]
    terms = (
        payload.scheme,
        payload.network,
        payload.asset.lower(),
        payload.pay_to.lower(),
        int(payload.amount),
    )
    bought = (
        SCHEMES[base_rail(attempt.rail)],
        network,
        token.lower() or payload.asset.lower(),
        attempt.payee.lower(),
        attempt.at_most.units,
    )
    return [] if terms == bought else ["the seller's offer is of other terms"]


def _receipt_problems(
    signed: SignedReceipt | None, receipt: Receipt, payer: str, network: str
) -> list[str]:
    """Return why a signed receipt is not the payee's receipt for this payer."""
    if signed is None:
        return ["the seller's receipt cannot be read"]
    if signed.signer.lower() != receipt.attempt.payee.lower():
        return [f"the seller's receipt is not signed by {receipt.attempt.payee}"]
    if signed.payload.payer.lower() != payer.lower():
        return ["the seller's receipt is for another payer"]
    if signed.payload.network != network:
        return ["the seller's receipt is for a payment on another network"]
    return []


def _read(kind: type[S], document: dict[str, object]) -> S | None:
    """Return a statement, None for anything else."""
    try:
        return kind.model_validate(document)
    except ValidationError:
        return None
