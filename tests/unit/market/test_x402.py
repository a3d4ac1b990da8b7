"""The wire of x402: what is read is what was written, and nothing else is read."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import ProtocolBroken
from agentkit.market.x402 import (
    MAX_HEADER,
    Authorization,
    Challenge,
    Presented,
    Proof,
    Requirement,
    Settled,
    header_of,
)
from agentkit.testing.fakes import NETWORK

PAYEE = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
UNITS = st.integers(0, 2**128 - 1)
HEX = "0123456789abcdef"

proofs = st.builds(
    lambda sender, to, value, after, before, nonce, signature: Proof(
        signature=f"0x{signature}",
        authorization=Authorization(
            sender=f"0x{sender}",
            to=f"0x{to}",
            value=str(value),
            valid_after=str(after),
            valid_before=str(before),
            nonce=f"0x{nonce}",
        ),
    ),
    *[st.text(HEX, min_size=40, max_size=40)] * 2,
    *[UNITS] * 3,
    st.text(HEX, min_size=64, max_size=64),
    st.text(HEX, min_size=130, max_size=130),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)


def asked(**extensions: Any) -> Challenge:
    wanted = Requirement.on(NETWORK, PAYEE, 7, timeout=60)
    return Challenge(x402_version=2, accepts=[wanted.document()], extensions=extensions or None)


@given(proofs, UNITS, st.text(HEX, min_size=16, max_size=128))
def test_what_travels_arrives(proof: Proof, units: int, name: str) -> None:
    wanted = Requirement.on(NETWORK, PAYEE, units, timeout=60, flow="upfront")
    challenge = asked(**{"payment-identifier": {"info": {"required": True}, "own": [1]}})
    presented = Presented.to(challenge, wanted, proof, name)
    read = Presented.read(presented.header())
    assert read == presented
    assert read.identifier == name
    assert read.extensions == {
        "payment-identifier": {"info": {"required": True, "id": name}, "own": [1]}
    }
    assert read.accepted.document() == wanted.document()


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_what_a_peer_adds_goes_back_to_it(extra: dict[str, Any]) -> None:
    entry = {**Requirement.on(NETWORK, PAYEE, 7, timeout=60).document(), "theirs": 1}
    entry["extra"] = {**entry["extra"], **{f"x-{k}": v for k, v in extra.items()}}
    challenge = Challenge.read(Challenge(x402_version=2, accepts=[entry]).header())
    ours = challenge.payable_on(NETWORK)
    assert ours
    assert json.loads(json.dumps(ours.document())) == entry


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode), st.booleans())
def test_anything_else_is_refused_as_such(data: bytes, encoded: bool) -> None:
    header = base64.b64encode(data).decode() if encoded else data.decode(errors="replace")
    for value in (Challenge, Presented, Settled):
        with pytest.raises(ProtocolBroken):
            value.read(header)


@given(json_values)
def test_json_that_is_something_else_is_refused(document: Any) -> None:
    header = base64.b64encode(json.dumps(document).encode()).decode()
    for value in (Challenge, Presented, Settled):
        with pytest.raises(ProtocolBroken):
            value.read(header)


@pytest.mark.parametrize("odd", ["[" * 150 + "]" * 150, "NaN", '{"a": 1, "a": 2}', "9" * 4301])
def test_a_header_holds_only_what_can_be_stored(odd: str) -> None:
    """A seller that took it would fail when it writes the payment down, or sends it on."""
    answer = Settled(success=True, transaction="", network=NETWORK.id)
    text = base64.b64decode(answer.header()).decode()
    Settled.read(base64.b64encode(text.encode()).decode())
    changed = text[:-1] + f', "theirs": {odd}}}'
    with pytest.raises(ProtocolBroken):
        Settled.read(base64.b64encode(changed.encode()).decode())


def test_a_header_has_a_size() -> None:
    challenge = asked()
    assert header_of(Challenge, {"h": challenge.header()}, "h") == challenge
    assert header_of(Challenge, {}, "h") is None
    huge = asked(big="x" * MAX_HEADER)
    with pytest.raises(ProtocolBroken, match="characters"):
        Challenge.read(huge.header())


@pytest.mark.parametrize(
    "amount", ["", "-1", "1.5", "1e3", "1_000", " 1", "\u0661", "9" * 40, 5, None]
)
def test_an_amount_is_digits(amount: Any) -> None:
    entry = {**Requirement.on(NETWORK, PAYEE, 7, timeout=60).document(), "amount": amount}
    challenge = Challenge(x402_version=2, accepts=[entry])
    assert challenge.payable_on(NETWORK) is None


@pytest.mark.parametrize(
    ("payee", "good"),
    [
        (PAYEE, True),
        (PAYEE.lower(), True),
        ("0x" + PAYEE[2:].upper(), True),
        (PAYEE.swapcase().replace("0X", "0x"), False),
        ("0x" + "00" * 20, False),
        (PAYEE[:-1], False),
        (PAYEE + "00", False),
        ("somebody.eth", False),
    ],
)
def test_a_payee_is_an_address_with_its_checksum(payee: str, good: bool) -> None:
    entry = {**Requirement.on(NETWORK, PAYEE, 7, timeout=60).document(), "payTo": payee}
    ours = Challenge(x402_version=2, accepts=[entry]).payable_on(NETWORK)
    assert (ours is not None) is good
    assert ours is None or ours.payee == PAYEE


@pytest.mark.parametrize("name", ["short", "x" * 129, "sixteen chars or", 7, ["x"]])
def test_an_identifier_has_a_form(name: Any) -> None:
    proof = Proof.model_validate(
        {
            "signature": "0x" + "11" * 65,
            "authorization": {
                "from": PAYEE,
                "to": PAYEE,
                "value": "1",
                "validAfter": "0",
                "validBefore": "1",
                "nonce": "0x" + "11" * 32,
            },
        }
    )
    extension = {"payment-identifier": {"info": {"required": True, "id": name}}}
    wanted = Requirement.on(NETWORK, PAYEE, 7, timeout=60)
    presented = Presented(x402_version=2, accepted=wanted, payload=proof, extensions=extension)
    with pytest.raises(ProtocolBroken):
        assert presented.identifier is None


@pytest.mark.parametrize(
    "change",
    [
        {"success": False},
        {"network": "eip155:1"},
        {"payer": "0x" + "33" * 20},
        {"amount": "8"},
        {"transaction": "0x1234"},
        {"transaction": ""},
    ],
)
def test_a_settlement_speaks_of_one_payment(change: dict[str, Any]) -> None:
    authorization = Authorization(
        sender=PAYEE, to=PAYEE, value="7", valid_after="0", valid_before="9", nonce="0x" + "11" * 32
    )
    proof = Proof(signature="0x" + "22" * 65, authorization=authorization)
    told = {
        "success": True,
        "network": NETWORK.id,
        "payer": PAYEE.lower(),
        "amount": "7",
        "transaction": "0x" + "44" * 32,
    }
    assert Settled.model_validate(told).tells_of(proof, NETWORK)
    assert not Settled.model_validate({**told, **change}).tells_of(proof, NETWORK)
