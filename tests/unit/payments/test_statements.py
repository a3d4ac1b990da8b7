"""What a bundle proves by its sellers' statements, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit.keys.signer import KeySigner
from agentkit.market.attempt import Attempt, SellerStatements, attempt_id, purchase_id
from agentkit.market.receipt import Receipt
from agentkit.market.x402 import Requirement
from agentkit.money import Money
from agentkit.payments.networks import NETWORKS
from agentkit.payments.receipts import Bundle, proof_of, verify
from agentkit.payments.x402.issuer import Issuer
from agentkit.testing.fakes import NETWORK, USDC

PAYER, SELLER, OTHER = (KeySigner(bytes([n]) * 32) for n in (1, 2, 3))
URL = "https://shop.example/chat"
WAY = Requirement.on(NETWORK, SELLER.address, 500, timeout=60)


def offer(by: KeySigner = SELLER, url: str = URL, **changes: Any) -> dict[str, Any]:
    way = WAY.model_copy(update=changes)
    made: dict[str, Any] = Issuer(by, NETWORK.id).offers(url, [way])["info"]["offers"][0]
    return made


def signed(
    by: KeySigner = SELLER, url: str = URL, payer: str = PAYER.address, network: str = NETWORK.id
) -> dict[str, Any]:
    return Issuer(by, network).receipt(url, payer)


def bundle(statements: SellerStatements, rail: str = "x402") -> Bundle:
    purchase = purchase_id("r1", "n", 0)
    attempt = Attempt(
        id=attempt_id(purchase, 0, "web", "t"),
        purchase=purchase,
        n=0,
        run="r1",
        node="n",
        item=0,
        provider="web",
        rail=rail,
        payee=SELLER.address,
        terms="t",
        at_most=Money(500, USDC),
        task="t",
    )
    paid = Receipt(
        attempt=attempt, standing="paid", amount=Money(500, USDC), at=1.0, statements=statements
    )
    return Bundle(
        chain_id=NETWORK.chain_id,
        channels_contract=NETWORK.channels,
        token=NETWORK.token,
        payer=PAYER.address,
        receipts=(paid,),
        channels=(),
    )


@pytest.mark.parametrize(
    ("statements", "proof"),
    [
        (SellerStatements(offer=offer(), receipt=signed()), "the seller's offer and receipt"),
        (SellerStatements(receipt=signed()), "the seller's receipt"),
        (SellerStatements(offer=offer()), "the seller's offer"),
        (SellerStatements(), "the payer's word"),
    ],
)
def test_a_bundle_says_which_statements_stand_behind_a_receipt(
    statements: SellerStatements, proof: str
) -> None:
    made = bundle(statements)
    assert verify(made) == []
    assert proof_of(made.receipts[0], made) == proof


WRONG = {
    "offer is not signed": [
        {"offer": offer(OTHER)},
        {"offer": offer() | {"payload": offer(amount="9")["payload"]}},
    ],
    "offer is of other terms": [
        {"offer": offer(amount="501")},
        {"offer": offer(scheme="batch-settlement")},
        {"offer": offer(network="eip155:1")},
        {"offer": offer(asset="0x" + "99" * 20)},
        {"offer": offer(pay_to=OTHER.address)},
    ],
    "receipt is not signed": [{"receipt": signed(OTHER)}],
    "receipt is for another payer": [{"receipt": signed(payer=OTHER.address)}],
    "on another network": [{"receipt": signed(network="eip155:1")}],
    "different addresses": [{"offer": offer(), "receipt": signed(url=URL + "/other")}],
    "offer cannot be read": [{"offer": {"format": "jws", "signature": "x"}}, {"offer": {"a": 1}}],
    "receipt cannot be read": [{"receipt": signed() | {"payload": None}}],
}


@pytest.mark.parametrize(
    ("words", "statements"), [(words, each) for words, all_ in WRONG.items() for each in all_]
)
def test_what_a_seller_did_not_sign_is_a_problem(words: str, statements: dict[str, Any]) -> None:
    (problem,) = verify(bundle(SellerStatements(**statements)))
    assert words in problem


OPTIMISM = NETWORKS["optimism"]
THERE = "eip155:10"


def offer_there(asset: str = OPTIMISM.usdc, network: str = THERE) -> dict[str, Any]:
    return offer(network=network, asset=asset)


def test_what_was_bought_on_another_network_is_proved_by_its_seller_too() -> None:
    """Its rail says the network, and the token is the one that is known of it."""
    statements = SellerStatements(offer=offer_there(), receipt=signed(network=THERE))
    made = bundle(statements, rail="x402@eip155:10")
    assert verify(made) == []
    assert proof_of(made.receipts[0], made) == "the seller's offer and receipt"


@pytest.mark.parametrize(
    "statements",
    [
        {"offer": offer_there(asset="0x" + "99" * 20)},
        {"offer": offer()},
        {"receipt": signed()},
        {"offer": offer_there(network="eip155:1")},
    ],
)
def test_statements_about_another_network_than_the_rail_says_are_a_problem(
    statements: dict[str, Any],
) -> None:
    (problem,) = verify(bundle(SellerStatements(**statements), rail="x402@eip155:10"))
    assert "of other terms" in problem or "on another network" in problem


def test_statements_do_not_stand_where_no_seller_signs_any() -> None:
    (*_, problem) = verify(bundle(SellerStatements(receipt=signed()), rail="prepaid"))
    assert "over prepaid" in problem
    assert verify(bundle(SellerStatements(receipt=signed()), rail="batch-settlement")) == []
