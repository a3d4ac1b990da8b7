"""What a service that wants money says is read or refused, whatever it is."""

import base64
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.drawn_cases import cases

from agentkit.errors import StateCorrupt
from agentkit.market.uploads import UploadPayment
from agentkit.market.x402 import Authorization, Proof
from agentkit.memory.uploads.turbo import _payment_options

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)
FIELDS = ("scheme", "network", "maxAmountRequired", "asset", "payTo", "maxTimeoutSeconds", "extra")
WAY = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ANYTHING))
GOOD = {
    "scheme": "exact",
    "network": "base",
    "maxAmountRequired": "1000",
    "asset": "0x" + "1" * 40,
    "payTo": "0x" + "2" * 40,
    "maxTimeoutSeconds": 300,
}


@given(st.binary(max_size=200) | st.builds(lambda a: json.dumps(a).encode(), ANYTHING))
@example(b'{"accepts": ' + b"[" * 20_000)
@example(json.dumps({"accepts": [GOOD] * 33}).encode())
def test_any_answer_is_terms_or_is_refused(answer: bytes) -> None:
    try:
        ways = _payment_options(answer)
    except StateCorrupt:
        return
    assert len(ways) <= 32


@settings(max_examples=cases(40))
@given(st.lists(WAY | st.just(GOOD), max_size=8))
def test_ways_that_cannot_be_read_are_left_out(entries: list[dict[str, object]]) -> None:
    ways = _payment_options(json.dumps({"x402Version": 1, "accepts": entries}).encode())
    assert len(ways) >= entries.count(GOOD)
    for way in ways:
        assert int(way.required.amount) >= 0


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=65, max_size=65))
def test_a_payment_travels_as_version_1_has_it(nonce: bytes, signature: bytes) -> None:
    (way,) = _payment_options(json.dumps({"accepts": [GOOD]}).encode())
    assert way.required.network == "eip155:8453"
    signed = Authorization(
        sender="0x" + "3" * 40,
        to="0x" + "2" * 40,
        value="1000",
        valid_after="0",
        valid_before="9",
        nonce="0x" + nonce.hex(),
    )
    proof = Proof(signature="0x" + signature.hex(), authorization=signed)
    header = way.header(UploadPayment(proof=proof, name="0x"))
    document = json.loads(base64.b64decode(header, validate=True))
    assert (document["x402Version"], document["network"]) == (1, "base")
    assert document["payload"]["authorization"]["from"] == signed.sender
    assert Proof.model_validate(document["payload"]) == proof
