"""The test token takes authorizations as the strictest and the laxest of real tokens do."""

from typing import Any

import pytest
from support.evm import Deployed, Evm, other_forms, vrs

from agentkit.keys.messages import ReceiveAuthorization, keccak
from agentkit.keys.signer import KeySigner

DEPLOYER, PAYER, SHOP, STRANGER = (KeySigner(bytes(31) + bytes([n])) for n in b"1234")
MINTED = 1000


@pytest.fixture
def token() -> Deployed:
    token = Deployed.new(Evm(), "TestUSD", DEPLOYER)
    token.do(DEPLOYER, "mint", PAYER.address, MINTED)
    return token


def authorized(token: Deployed, nonce: bytes, units: int = 5, until: int = 0) -> Any:
    """A payment that the shop draws: what is called, and the payer's signature."""
    until = until or token.evm.now + 60
    given = ReceiveAuthorization(PAYER.address, SHOP.address, units, until, nonce)
    signature = PAYER.sign_authorization(token.domain("USD Coin"), given)
    return (PAYER.address, SHOP.address, units, 0, until, nonce), signature


@pytest.mark.parametrize(
    "nonce", [bytes(32), b"\xff" * 32, keccak(b"random"), keccak(b"key")[:24] + bytes(8)]
)
def test_a_nonce_of_any_form_is_good_once(token: Deployed, nonce: bytes) -> None:
    call, signature = authorized(token, nonce)
    draw = "receiveWithAuthorization"
    for who in (PAYER, STRANGER):
        assert token.refusal(who, draw, *call, *vrs(signature)) == "caller must be the payee"
    for form in other_forms(signature):
        assert token.refusal(SHOP, draw, *call, *form) == "invalid signature"
    token.do(SHOP, draw, *call, *vrs(signature))
    assert token.said("AuthorizationUsed")[0]["nonce"] == nonce
    assert token.do(SHOP, "balanceOf", SHOP.address) == 5
    assert token.do(SHOP, "authorizationState", PAYER.address, nonce) is True
    used = "authorization is used or canceled"
    assert token.refusal(SHOP, draw, *call, *vrs(signature)) == used
    other, signed = authorized(token, nonce, units=6)
    assert token.refusal(SHOP, draw, *other, *vrs(signed)) == used


@pytest.mark.parametrize(
    ("off", "reason"),
    [(-1, ""), (0, "authorization is expired"), (1, "authorization is expired")],
)
def test_an_authorization_ends_to_the_second(token: Deployed, off: int, reason: str) -> None:
    call, signature = authorized(token, bytes(32), until=token.evm.now + 60)
    token.evm.now += 60 + off
    assert token.refusal(SHOP, "receiveWithAuthorization", *call, *vrs(signature)) == reason


def test_nothing_beyond_the_balance_is_drawn(token: Deployed) -> None:
    call, signature = authorized(token, bytes(32), units=MINTED + 1)
    reason = token.refusal(SHOP, "receiveWithAuthorization", *call, *vrs(signature))
    assert reason == "balance is too low"
    whole, signed = authorized(token, bytes(32), units=MINTED)  # what failed used no nonce
    token.do(SHOP, "receiveWithAuthorization", *whole, *vrs(signed))
