"""x402 on real chains: the suites of rail and provider, and the x402 SDK as the oracle."""

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.chain_processes import KEYS, Node
from support.x402_market import (
    MODEL,
    PATH,
    PRICE,
    Payer,
    Shop,
    World,
    answer,
    chain_of,
    facilitator,
    payer,
    shop,
    world_on,
)
from support.x402_sdk_client import InThreads, StockPayer, stock_shop
from x402.http.utils import (
    decode_payment_required_header,
    decode_payment_signature_header,
    encode_payment_required_header,
)
from x402.schemas import PaymentRequirements

from agentkit.keys.messages import TransferAuthorization, recover, typed_digest
from agentkit.keys.signer import KeySigner
from agentkit.market.x402 import REQUIRED, Challenge, Presented, Proof, Requirement
from agentkit.testing import Desk, ProviderConformance, RailConformance

ANVIL = pytest.param("anvil", marks=pytest.mark.anvil)


@pytest.fixture(scope="module", params=["embedded"])
def node(request: Any, tmp_path_factory: Any) -> Iterator[Node]:
    with chain_of(request.param, tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(node: Node) -> AsyncIterator[World]:
    async with world_on(node) as made:
        yield made


@pytest.fixture
async def store(world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    async with facilitator(world, tmp_path) as url, shop(world, tmp_path, url) as open_shop:
        yield open_shop


@pytest.fixture
async def wallet(world: World, store: Shop, tmp_path: Path) -> AsyncIterator[Payer]:
    async with payer(world, tmp_path, store.url) as one:
        yield one


class TestX402(ProviderConformance, RailConformance):
    @pytest.fixture
    def desk(self, wallet: Payer) -> Desk:
        return wallet.desk


@pytest.mark.parametrize("node", ["embedded", ANVIL], indirect=True, scope="module")
async def test_what_was_bought_is_paid_once_on_the_chain(
    world: World, store: Shop, wallet: Payer
) -> None:
    task, offer, attempt, payment = await wallet.sign()
    assert offer.price == offer.at_most == attempt.at_most
    assert (offer.at_most.units, offer.payee) == (PRICE, world.payee)
    for _ in range(3):
        await wallet.provider.submit(task, offer, attempt, payment)
        result = await wallet.provider.result(attempt)
        assert result.outputs[0].text == "answer 1"
    assert store.counter.works == 1
    assert await world.earned() == PRICE
    assert await wallet.rail.lookup(attempt) == "paid"


# -- the SDK as the oracle -----------------------------------------------------------------------


@pytest.mark.parametrize("identifies", [True, False])
async def test_the_sdks_shop_and_facilitator_take_our_payment(
    world: World, tmp_path: Path, identifies: bool
) -> None:
    async def work(request: web.Request) -> web.Response:
        return web.json_response(answer("from the SDK's shop"))

    stock = InThreads(world, KEYS[2])
    async with (
        stock_shop(world, stock, work, identifies=identifies) as url,
        payer(world, tmp_path, url) as wallet,
    ):
        task, offer, attempt, payment = await wallet.sign()
        assert offer.finds is identifies
        await wallet.provider.submit(task, offer, attempt, payment)
        result = await wallet.provider.result(attempt)
        assert result.outputs[0].text == "from the SDK's shop"
        receipt = await wallet.desk.settle(attempt, result)
        assert receipt.evidence.reference.startswith("0x")
        assert await world.earned() == PRICE
        assert await wallet.rail.lookup(attempt) == "paid"


async def test_the_sdks_client_buys_from_our_shop(world: World, store: Shop) -> None:
    key = secrets.token_bytes(32)
    await world.mint(KeySigner(key).address, PRICE)
    async with aiohttp.ClientSession() as session:
        stock = StockPayer(world, key, session)
        status, body, settled = await stock.post(store.url + PATH, {"model": MODEL})
    assert (status, json.loads(body)) == (200, answer("answer 1"))
    assert settled.success
    assert settled.payer == KeySigner(key).address
    assert await world.earned() == PRICE


async def test_the_sdk_verifies_what_ours_does_and_refuses_the_same(
    world: World, wallet: Payer
) -> None:
    """One byte, one unit or one second of what was signed, and both say no."""
    stock = InThreads(world, KEYS[2])
    *_, payment = await wallet.sign()
    proof = Proof.model_validate(payment.body["proof"])
    wanted = Requirement.on(world.network, world.payee, PRICE, timeout=60)
    domain = world.network.token_domain

    async def verdicts(changed: Proof) -> set[bool]:
        presented = Presented(x402_version=2, accepted=wanted, payload=changed)
        header = presented.header()
        said = await stock.verify(
            decode_payment_signature_header(header),
            PaymentRequirements.model_validate(wanted.document()),
        )
        paid = changed.authorization
        transfer = TransferAuthorization(
            payer=paid.sender,
            payee=paid.to,
            units=int(paid.value),
            valid_before=int(paid.valid_before),
            nonce=bytes.fromhex(paid.nonce[2:]),
            valid_after=int(paid.valid_after),
        )
        signature = bytes.fromhex(changed.signature[2:])
        return {said.is_valid, recover(typed_digest(domain, transfer), signature) == paid.sender}

    assert await verdicts(proof) == {True}
    paid = proof.authorization
    for field, value in (
        ("value", str(PRICE - 1)),
        ("to", KeySigner(KEYS[3]).address),
        ("valid_before", str(int(paid.valid_before) + 1)),
        ("nonce", "0x" + "11" * 32),
        ("sender", KeySigner(KEYS[3]).address),
    ):
        other = paid.model_copy(update={field: value})
        assert await verdicts(proof.model_copy(update={"authorization": other})) == {False}, field
    flipped = (
        proof.signature[:-4] + ("0" if proof.signature[-4] != "0" else "1") + proof.signature[-3:]
    )
    assert await verdicts(proof.model_copy(update={"signature": flipped})) == {False}


async def test_what_travels_reads_the_same_for_the_sdk(store: Shop) -> None:
    async with aiohttp.ClientSession() as session, session.post(store.url + PATH) as said:
        header = said.headers[REQUIRED]
        assert said.headers["Cache-Control"] == "private, no-store"
    theirs, ours = decode_payment_required_header(header), Challenge.read(header)
    assert theirs.model_dump(by_alias=True, exclude_none=True) == ours.document()
    assert Challenge.read(encode_payment_required_header(theirs)) == ours
    assert ours.identifies
