"""A seller's statements count only if the payee signed them, about this sale."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from agentkit.keys.signer import KeySigner
from agentkit.market.offer_receipt import EXTENSION, MAX_OFFERS, offer_in, receipt_in
from agentkit.market.x402 import Challenge, Requirement, Settled
from agentkit.payments.x402.issuer import Issuer, receipt_extension
from agentkit.testing.fakes import NETWORK

SELLER, PAYER, OTHER = (KeySigner(bytes([n]) * 32) for n in (1, 2, 3))
URL = "https://shop.example/chat?x=1"
PATH = "/chat"
WAY = Requirement.on(NETWORK, SELLER.address, 5, timeout=60)
TRANSACTION = "0x" + "ab" * 32


def challenge(offers: Any) -> Challenge:
    return Challenge(
        x402_version=2,
        accepts=[WAY.document()],
        extensions={EXTENSION: {"info": {"offers": offers}}},
    )


def settled(receipt: Any) -> Settled:
    extensions = {EXTENSION: {"info": {"receipt": receipt}}}
    return Settled(success=True, transaction=TRANSACTION, network=NETWORK.id, extensions=extensions)


def offers(by: KeySigner = SELLER, way: Requirement = WAY) -> list[Any]:
    made: list[Any] = Issuer(by, NETWORK.id).offers(URL, [way])["info"]["offers"]
    return made


def receipt(by: KeySigner = SELLER, **changes: str) -> Any:
    about = {"url": URL, "payer": PAYER.address, "transaction": TRANSACTION} | changes
    return Issuer(by, changes.pop("network", NETWORK.id)).receipt(
        about["url"], about["payer"], about["transaction"]
    )


def read(document: Any, **changes: str) -> Any:
    ours = {"payee": SELLER.address, "payer": PAYER.address, "network": NETWORK.id, "path": PATH}
    return receipt_in(settled(document), **(ours | changes))


def test_the_payees_own_statements_are_read_word_for_word() -> None:
    (document,) = offers()
    found = offer_in(challenge([document]), WAY, PATH)
    assert found is not None
    assert found.document() == document
    signed = receipt()
    assert read(signed).document() == signed
    assert receipt_extension(signed)["info"]["receipt"] == signed


def test_an_offer_counts_wherever_it_stands_among_others() -> None:
    (document,) = offers()
    dear = offers(way=WAY.model_copy(update={"amount": "9"}))
    crowd = [None, 5, {}, *dear, *offers(OTHER)]
    assert offer_in(challenge([*crowd, document]), WAY, PATH) is not None
    assert offer_in(challenge(crowd), WAY, PATH) is None
    late = [{}] * MAX_OFFERS + [document]
    assert offer_in(challenge(late), WAY, PATH) is None


Change = Callable[[Any], None]


def field(name: str, value: Any) -> Change:
    return lambda document: document["payload"].update({name: value})


def top(name: str, value: Any) -> Change:
    return lambda document: document.update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        field("resourceUrl", "https://shop.example/other"),
        field("resourceUrl", "https://shop.example:x/chat"),
        field("resourceUrl", "https://shop.example/chat\ud800"),
        field("validUntil", 1),
        field("version", 2),
        field("amount", "6"),
        field("amount", 5),
        field("note", "not covered by the signature"),
        field("scheme", "upto"),
        field("network", "eip155:1"),
        field("asset", "0x" + "99" * 20),
        field("payTo", OTHER.address),
        top("signature", "0x" + "00" * 65),
        top("signature", "0x"),
        top("format", "jws"),
        top("payload", None),
    ],
)
def test_an_offer_with_anything_changed_is_none(change: Change) -> None:
    (document,) = copy.deepcopy(offers())
    change(document)
    assert offer_in(challenge([document]), WAY, PATH) is None


@pytest.mark.parametrize(
    "change",
    [
        field("payer", OTHER.address),
        field("issuedAt", 1),
        field("issuedAt", -1),
        field("issuedAt", 2**60),
        field("transaction", ""),
        field("resourceUrl", "https://shop.example/"),
        field("network", "eip155:1"),
        field("paid", "5"),
        top("signature", "0x" + "11" * 65),
        top("format", "jws"),
    ],
)
def test_a_receipt_with_anything_changed_is_none(change: Change) -> None:
    document = copy.deepcopy(receipt())
    change(document)
    assert read(document) is None


def test_a_receipt_of_somebody_else_or_for_somebody_else_is_none() -> None:
    assert read(receipt(OTHER)) is None
    assert read(receipt(payer=OTHER.address)) is None
    assert read(receipt(), path="/other") is None
    assert read(receipt(), network="eip155:1") is None
    assert read(receipt(), payer=PAYER.address.lower()) is not None


@pytest.mark.parametrize("odd", [None, 5, [], "x", {"info": None}, {"info": {"offers": {}}}])
def test_whatever_stands_there_is_read_without_harm(odd: Any) -> None:
    asked = Challenge(x402_version=2, accepts=[], extensions={EXTENSION: odd})
    assert offer_in(asked, WAY, PATH) is None
    told = Settled(success=True, transaction="", network="", extensions={EXTENSION: odd})
    assert receipt_in(told, payee="", payer="", network="", path="") is None
    assert receipt_in(None, payee="", payer="", network="", path="") is None
