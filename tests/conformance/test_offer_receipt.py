"""Signed offers and receipts as the x402 project's own JavaScript reads and writes them."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.timing import limit

from agentkit.keys.signer import KeySigner
from agentkit.market.offer_receipt import EXTENSION, offer_in, receipt_in
from agentkit.market.x402 import Challenge, Requirement, Settled
from agentkit.payments.x402.issuer import Issuer, receipt_extension
from agentkit.testing.fakes import NETWORK

NPM = Path(__file__).parent.parent / "npm"
NEEDS_NODE = pytest.mark.skipif(
    not (NPM / "node_modules" / "@x402" / "extensions").is_dir() or not shutil.which("node"),
    reason="the x402 project's extensions are not installed: tests/npm/install",
)
SELLER, PAYER, OTHER = (KeySigner(bytes([n]) * 32) for n in (1, 2, 3))
URL = "https://shop.example/chat/\u00fc?"


def oracle(challenge: Challenge, settled: Settled, key: bytes) -> Any:
    request = {
        "challenge": challenge.document(),
        "settled": settled.header(),
        "payer": PAYER.address,
        "key": "0x" + key.hex(),
    }
    run = subprocess.run(
        ["node", NPM / "offer-receipt-oracle.mjs"],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
        timeout=limit(60),
    )
    assert run.returncode == 0, run.stderr.decode()
    return json.loads(run.stdout)


@NEEDS_NODE
def test_the_javascript_reads_ours_and_we_read_its() -> None:
    ways = [Requirement.on(NETWORK, SELLER.address, units, timeout=60) for units in (5, 7)]
    issuer = Issuer(SELLER, NETWORK.id)
    challenge = Challenge(
        x402_version=2,
        resource={"url": URL},
        accepts=[way.document() for way in ways],
        extensions={EXTENSION: issuer.offers(URL, ways)},
    )
    receipt = issuer.receipt(URL, PAYER.address, "0x" + "ab" * 32)
    settled = Settled(
        success=True,
        transaction="0x" + "ab" * 32,
        network=NETWORK.id,
        payer=PAYER.address,
        extensions={EXTENSION: receipt_extension(receipt)},
    )
    told = oracle(challenge, settled, OTHER_KEY := bytes([3]) * 32)
    seller = SELLER.address.lower()
    assert (told["offers"], told["receipt"]) == ([seller, seller], seller)
    assert (told["found"], told["matches"]) == (["exact", "exact"], [True, True])

    path = "/chat/\u00fc"
    assert KeySigner(OTHER_KEY).address == OTHER.address
    theirs = Requirement.on(NETWORK, OTHER.address, 5, timeout=60)
    document = told["offer"]
    document["payload"]["payTo"] = OTHER.address  # it signed the terms of the first way
    forged = challenge.model_copy(
        update={"extensions": {EXTENSION: {"info": {"offers": [document]}}}}
    )
    assert offer_in(forged, theirs, path) is None

    way = ways[0].model_copy(update={"pay_to": OTHER.address})
    resold = challenge.model_copy(update={"accepts": [way.document()]})
    told = oracle(resold, settled, OTHER_KEY)
    signed = resold.model_copy(
        update={"extensions": {EXTENSION: {"info": {"offers": [told["offer"]]}}}}
    )
    offer = offer_in(signed, way, path)
    assert offer is not None
    assert offer.signer == OTHER.address
    answered = settled.model_copy(
        update={"extensions": {EXTENSION: {"info": {"receipt": told["their_receipt"]}}}}
    )
    found = receipt_in(
        answered, payee=OTHER.address, payer=PAYER.address, network=NETWORK.id, path=path
    )
    assert found is not None
    assert found.signer == OTHER.address
