"""The test token takes authorizations as the strictest and the laxest of real tokens do."""

from dataclasses import replace
from typing import Any

import pytest
from coincurve import PrivateKey
from support.evm import (
    WALLET_WAYS,
    Deployed,
    Evm,
    Reverted,
    contract_wallet,
    holds,
    other_forms,
    vrs,
)

from agentkit.keys.messages import ReceiveAuthorization, address_word, keccak, word
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


# -- signatures as bytes, and of contracts (USDC 2.2) --------------------------------------------


def taking_bytes(token: Deployed) -> Deployed:
    """The same token, called in the forms that take a signature as bytes."""
    forms = [e for e in token.abi if any(i["name"] == "signature" for i in e.get("inputs", ()))]
    assert len(forms) == 2
    return replace(token, abi=forms)


def test_a_signature_as_bytes_is_the_same_signature(token: Deployed) -> None:
    call, signature = authorized(token, bytes(32))
    by_bytes, draw = taking_bytes(token), "receiveWithAuthorization"
    assert by_bytes.refusal(STRANGER, draw, *call, signature) == "caller must be the payee"
    forms = [r + s + bytes([v]) for v, r, s in other_forms(signature)]
    for form in (*forms, b"", signature[:64], signature + b"\0", bytes(960)):
        assert by_bytes.refusal(SHOP, draw, *call, form) == "invalid signature"
    assert by_bytes.refusal(SHOP, draw, *call, bytes(961)) == "signature is too long"
    # What is signed for one of the two transfers is not good for the other.
    other = by_bytes.refusal(SHOP, "transferWithAuthorization", *call, signature)
    assert other == "invalid signature"
    by_bytes.do(SHOP, draw, *call, signature)
    assert token.said("AuthorizationUsed")[0]["nonce"] == bytes(32)
    used = token.refusal(SHOP, draw, *call, *vrs(signature))
    assert used == "authorization is used or canceled"
    assert holds(token, SHOP.address) == 5


def test_what_a_call_leaves_out_is_not_made_up(token: Deployed) -> None:
    call, signature = authorized(token, bytes(32))
    data = taking_bytes(token).data("receiveWithAuthorization", *call, signature)
    offset = 4 + 6 * 32
    far = data[:offset] + b"\xff" * 32 + data[offset + 32 :]
    for broken in (data[:4], data[:100], data[:-32], far, b"\1\2\3\4" + data[4:], b""):
        with pytest.raises(Reverted):
            token.evm.call(SHOP, token.address, broken)
    token.evm.call(SHOP, token.address, data + b"a suffix")
    assert holds(token, SHOP.address) == 5


@pytest.mark.parametrize("way", range(len(WALLET_WAYS)))
@pytest.mark.parametrize("form", ["bytes", "parts", "permit"])
def test_a_contract_wallet_is_asked(token: Deployed, way: int, form: str) -> None:
    """Its code decides, in every form, even of a signature that a key made."""
    wallet = contract_wallet(token.evm, PAYER)
    token.do(PAYER, "transfer", wallet.address, 100)
    wallet.do(PAYER, "behave", way)
    domain, until = token.domain("USD Coin"), token.evm.now + 60
    if form == "permit":
        kind = b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
        parties = address_word(wallet.address) + address_word(SHOP.address)
        message = keccak(kind) + parties + word(7) + word(0) + word(until)
        separator = token.do(SHOP, "DOMAIN_SEPARATOR")
        digest = keccak(b"\x19\x01" + separator + keccak(message))
        signed = PrivateKey(bytes(31) + b"2").sign_recoverable(digest, hasher=None)
        signature = signed[:64] + bytes([27 + signed[64]])
        call: Any = (wallet.address, SHOP.address, 7, until)
        refusal = token.refusal(SHOP, "permit", *call, *vrs(signature))
        done = token.do(SHOP, "allowance", wallet.address, SHOP.address) == 7
    else:
        given = ReceiveAuthorization(wallet.address, SHOP.address, 5, until, bytes(32))
        signature = PAYER.sign_authorization(domain, given)
        call = (wallet.address, SHOP.address, 5, 0, until, bytes(32))
        asked = taking_bytes(token) if form == "bytes" else token
        last = (signature,) if form == "bytes" else vrs(signature)
        refusal = asked.refusal(SHOP, "receiveWithAuthorization", *call, *last)
        done = holds(token, SHOP.address) == 5
    assert refusal == ("invalid signature" if way else "")
    assert done is not bool(way)
