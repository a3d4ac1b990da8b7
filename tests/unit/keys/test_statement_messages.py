"""Digests of x402's statements and of its Permit2 message, held against other implementations."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from x402.mechanisms.evm.types import (
    ExactPermit2TokenPermissions,
    UptoPermit2Authorization,
    UptoPermit2Witness,
)
from x402.mechanisms.evm.upto.client import _build_upto_permit2_typed_data

from agentkit.keys.messages import Domain, checksummed, typed_digest
from agentkit.keys.permit2_messages import UPTO_PROXY, UptoPermit, permit2_domain
from agentkit.keys.statement_messages import (
    OFFER_DOMAIN,
    RECEIPT_DOMAIN,
    OfferStatement,
    ReceiptStatement,
)

TYPES = {
    "Offer": {
        "version": "uint256",
        "resourceUrl": "string",
        "scheme": "string",
        "network": "string",
        "asset": "string",
        "payTo": "string",
        "amount": "string",
        "validUntil": "uint256",
    },
    "Receipt": {
        "version": "uint256",
        "network": "string",
        "resourceUrl": "string",
        "payer": "string",
        "issuedAt": "uint256",
        "transaction": "string",
    },
}


def theirs(name: str, domain: dict[str, Any], types: Any, message: dict[str, Any]) -> bytes:
    signable = encode_typed_data(domain, types, message)
    assert name in types
    return bytes(_hash_eip191_message(signable))


@pytest.mark.parametrize("text", ["https://a.example/x", "", "\u00fc\U0001f30a"])
@pytest.mark.parametrize("number", [0, 2**53 - 1])
def test_statements_have_the_digests_of_the_specification(text: str, number: int) -> None:
    offer = OfferStatement(1, text, "exact", "eip155:8453", "0xAB", "0xcd", "10000", number)
    receipt = ReceiptStatement(1, "eip155:8453", text, "0xcd", number, text)
    for name, domain, statement in (
        ("Offer", OFFER_DOMAIN, offer),
        ("Receipt", RECEIPT_DOMAIN, receipt),
    ):
        types = {name: [{"name": field, "type": kind} for field, kind in TYPES[name].items()]}
        values = [getattr(statement, field.name) for field in fields(statement)]
        message = dict(zip(TYPES[name], values, strict=True))
        where = {"name": domain.name, "version": "1", "chainId": 1}
        assert typed_digest(domain, statement) == theirs(name, where, types, message)


def test_a_permit_of_upto_has_the_digest_of_the_sdk() -> None:
    token, payer, payee, facilitator = (checksummed("0x" + f"{n}{n}" * 20) for n in range(1, 5))
    permit = UptoPermit(token, 2**128 - 1, UPTO_PROXY, 2**256 - 1, 2**40, payee, facilitator, 7)
    authorization = UptoPermit2Authorization(
        from_address=payer,
        permitted=ExactPermit2TokenPermissions(token=token, amount=str(permit.units)),
        spender=permit.spender,
        nonce=str(permit.nonce),
        deadline=str(permit.deadline),
        witness=UptoPermit2Witness(to=payee, facilitator=facilitator, valid_after="7"),
    )
    domain, kinds, name, message = _build_upto_permit2_typed_data(authorization, 8453)
    types = {
        kind: [{"name": field.name, "type": field.type} for field in members]
        for kind, members in kinds.items()
    }
    expected = theirs(name, domain, types, message)
    assert typed_digest(permit2_domain(8453), permit) == expected
    assert typed_digest(permit2_domain(1), permit) != expected


def test_a_domain_is_told_from_one_with_other_members() -> None:
    whole = Domain("a", "1", 1, "0x" + "11" * 20)
    others = [
        Domain("a", "", 1, whole.contract),
        Domain("a", "1", 1, ""),
        Domain("a", "", 1, ""),
        Domain("b", "1", 1, whole.contract),
    ]
    assert len({domain.separator for domain in (whole, *others)}) == 5
