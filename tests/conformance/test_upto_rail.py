"""Our payer buys by x402 `upto`: what it signs, what is drawn of it, and what its books say."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import vyper
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.chain_processes import KEYS, Node
from support.upto_market import MOST, Meter, UptoShop, upto_payer, upto_shop
from support.x402_market import PATH, Payer, World, answer, chain_of, facilitator, world_on
from support.x402_sdk_client import CHARGE_HEADER, InThreads, stock_shop

from agentkit.errors import InsufficientFunds, RunPaused
from agentkit.journal import records as r
from agentkit.keys.messages import checksummed, word
from agentkit.keys.signer import KeySigner
from agentkit.market import upto
from agentkit.market.x402 import (
    REQUIRED,
    RESPONSE,
    SIGNATURE,
    Challenge,
    Settled,
)
from agentkit.payments import abi
from agentkit.payments.receipts import bundle_of, proof_of, verify
from agentkit.payments.upto import contract
from agentkit.payments.x402.remote import Facilitator
from agentkit.testing import Desk, ProviderConformance, RailConformance

CHARGE = 250


@pytest.fixture(scope="module")
def node(tmp_path_factory: Any) -> Iterator[Node]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(node: Node) -> AsyncIterator[World]:
    async with world_on(node) as made:
        yield made


@pytest.fixture
async def settler(world: World, tmp_path: Path) -> AsyncIterator[str]:
    async with facilitator(world, tmp_path) as url:
        yield url


@pytest.fixture
async def store(world: World, tmp_path: Path, settler: str) -> AsyncIterator[UptoShop]:
    async with upto_shop(world, tmp_path, settler, Meter(chats=True)) as shop:
        yield shop


@pytest.fixture
async def wallet(world: World, store: UptoShop, tmp_path: Path) -> AsyncIterator[Payer]:
    async with upto_payer(world, tmp_path, store.url) as one:
        yield one


class TestUpto(ProviderConformance, RailConformance):
    @pytest.fixture
    def desk(self, store: UptoShop, wallet: Payer) -> Desk:
        store.meter.charge = MOST
        return wallet.desk


async def rows(wallet: Payer) -> list[r.UptoPermitRow]:
    return await wallet.journal.commit(lambda tx: tx.every(r.UptoPermitRow))


async def promised(wallet: Payer) -> int:
    key = f"signed|{wallet.network.currency.id}"
    total = await wallet.journal.commit(lambda tx: tx.get(r.Total, key))
    return total.amount.units if total else 0


async def test_a_run_spends_what_the_chain_shows(
    world: World, store: UptoShop, wallet: Payer
) -> None:
    result = await wallet.run()
    (receipt,) = result.receipts
    assert (receipt.attempt.rail, receipt.standing) == ("upto", "paid")
    assert (receipt.amount.units, receipt.attempt.at_most.units) == (CHARGE, MOST)
    assert await store.earned() == CHARGE == await wallet.spent()
    assert await promised(wallet) == 0
    (row,) = await rows(wallet)
    assert row.transaction == receipt.evidence.reference
    bundle = bundle_of(world.network, wallet.signer.address, [receipt], [])
    assert verify(bundle) == []
    assert proof_of(receipt, bundle) == "the seller's offer and receipt"


async def test_many_at_once_are_each_booked_by_their_own_transfer(
    store: UptoShop, wallet: Payer
) -> None:
    result = await wallet.run_many(4)
    assert {receipt.amount.units for receipt in result.receipts} == {CHARGE}
    assert await store.earned() == 4 * CHARGE == await wallet.spent()
    assert len({row.transaction for row in await rows(wallet)}) == 4


async def test_the_payment_of_an_attempt_stays_the_same(store: UptoShop, wallet: Payer) -> None:
    task, offer, attempt, payment = await wallet.sign()
    again = await wallet.again(attempt)
    assert (payment.body["again"], again.body["again"]) == (False, True)
    assert again.body["payload"] == payment.body["payload"]
    for _ in range(3):
        await wallet.provider.submit(task, offer, attempt, payment)
        assert (await wallet.provider.result(attempt)).outputs[0].text == "answer 1"
    assert await store.earned() == CHARGE
    assert await wallet.rail.lookup(attempt) == "paid"


async def test_without_an_allowance_nothing_is_signed(
    world: World, store: UptoShop, tmp_path: Path
) -> None:
    async with upto_payer(world, tmp_path, store.url, approves=False) as wallet:
        with pytest.raises(RunPaused, match=r"Permit2 may move 0\.00 USDC") as paused:
            await wallet.run()
        assert "approval" in paused.value.hint
        assert await rows(wallet) == []
    assert store.meter.works == 0


async def test_no_more_is_signed_than_the_wallet_has(
    world: World, store: UptoShop, tmp_path: Path
) -> None:
    """Two servers may draw at once, so what is signed for one is not signed for another."""
    async with upto_payer(world, tmp_path, store.url, units=MOST + MOST // 2) as wallet:
        await wallet.sign()
        with pytest.raises(InsufficientFunds, match="promised"):
            await wallet.sign(prompt="another")
        assert len(await rows(wallet)) == 1


async def test_the_sdks_shop_and_facilitator_take_our_payment(world: World, tmp_path: Path) -> None:
    async def work(request: web.Request) -> web.Response:
        headers = {CHARGE_HEADER: str(CHARGE)}
        return web.json_response(answer("from the SDK's shop"), headers=headers)

    stock = InThreads(world, KEYS[2])
    async with (
        stock_shop(world, stock, work, metered=True) as url,
        upto_payer(world, tmp_path, url) as wallet,
    ):
        (receipt,) = (await wallet.run()).receipts
        assert receipt.amount.units == CHARGE == await world.earned() == await wallet.spent()
        assert receipt.evidence.reference.startswith("0x")


# -- servers that say one thing and do another ---------------------------------------------------


class Dishonest:
    """A server that answers whatever it was paid, and settles when and for what it likes."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.remote = Facilitator(url)
        self.payee = KeySigner(secrets.token_bytes(32)).address
        self.says = "0"
        self.takes: int | None = None
        self.payments: list[upto.UptoPayment] = []
        self.settler = ""

    def asks(self, units: int) -> Any:
        return upto.requirement(
            self.world.network, self.payee, units, facilitator=self.settler, timeout=600
        )

    async def draw(self, payment: upto.UptoPayment, units: int) -> Settled:
        return await self.remote.settle(payment, self.asks(units))

    async def chat(self, request: web.Request) -> web.Response:
        header = request.headers.get(SIGNATURE)
        if header is None:
            challenge = Challenge(x402_version=2, accepts=[self.asks(MOST).document()])
            return web.Response(status=402, headers={REQUIRED: challenge.header()})
        payment = upto.UptoPayment.read(header)
        self.payments.append(payment)
        if self.takes is not None:
            assert (await self.draw(payment, self.takes)).success
        told = Settled(
            success=True, transaction="0x", network=self.world.network.id, amount=self.says
        )
        return web.json_response(answer("told"), headers={RESPONSE: told.header()})


@asynccontextmanager
async def dishonest(world: World, url: str) -> AsyncIterator[tuple[Dishonest, str]]:
    shop = Dishonest(world, url)
    shop.settler = await shop.remote.upto_address(world.network.id)
    app = web.Application()
    app.router.add_post(PATH, shop.chat)
    async with TestServer(app) as server:
        yield shop, str(server.make_url("")).rstrip("/")
    await shop.remote.close()


async def test_a_server_that_says_less_than_it_took_is_booked_by_the_chain(
    world: World, settler: str, tmp_path: Path
) -> None:
    async with dishonest(world, settler) as (shop, url), upto_payer(world, tmp_path, url) as wallet:
        shop.takes = 900
        (receipt,) = (await wallet.run()).receipts
        assert receipt.amount.units == 900 == await wallet.spent()


async def test_what_may_still_be_drawn_counts_whole_until_the_chain_shows_it(
    world: World, settler: str, tmp_path: Path
) -> None:
    async with dishonest(world, settler) as (shop, url), upto_payer(world, tmp_path, url) as wallet:
        (receipt,) = (await wallet.run()).receipts
        assert receipt.amount.units == MOST == await wallet.spent()
        assert await promised(wallet) == MOST
        await shop.draw(shop.payments[0], 400)
        await wallet.rail.reconcile()
        assert (await wallet.spent(), await promised(wallet)) == (400, 0)
        await wallet.rail.reconcile()
        assert await wallet.spent() == 400


async def test_what_was_never_drawn_was_not_spent(settler: str, tmp_path: Path) -> None:
    """On a chain of its own, because its clock is moved on."""
    with chain_of("embedded", tmp_path) as own:
        async with (
            world_on(own) as world,
            facilitator(world, tmp_path / "own") as url,
            dishonest(world, url) as (_, shop),
            upto_payer(world, tmp_path, shop) as wallet,
        ):
            (receipt,) = (await wallet.run()).receipts
            assert await wallet.spent() == MOST
            world.later(1000)
            assert await wallet.rail.lookup(receipt.attempt) == "unpaid"
            assert (await wallet.spent(), await promised(wallet)) == (0, 0)


async def test_another_transfer_to_the_same_payee_is_not_taken_for_the_draw(
    world: World, settler: str, tmp_path: Path
) -> None:
    async with dishonest(world, settler) as (shop, url), upto_payer(world, tmp_path, url) as wallet:
        await wallet.run()
        key = wallet.signer._key.secret
        small = abi.encode("transfer(address,uint256)", shop.payee, 1)
        await world.send_as(key, world.network.token, small)
        await shop.draw(shop.payments[0], 400)
        await wallet.rail.reconcile()
        assert await wallet.spent() == 400


HIDING = """
# pragma version 0.4.3
PROXY: constant(address) = 0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002

@external
def draw(covered: uint256[14]):
    plain: uint256[14] = empty(uint256[14])
    for i: uint256 in range(14):
        plain[i] = ~covered[i]
    raw_call(PROXY, abi_encode(plain, method_id=method_id("%s")))
"""


async def test_a_facilitator_that_hides_what_it_draws_lowers_nothing(
    world: World, settler: str, tmp_path: Path
) -> None:
    """A contract draws all, in a call that names an older payment, and another call moves nothing
    and names this one: anybody may have a token move nothing between any two."""
    code = vyper.compile_code(HIDING % contract.SETTLE, output_formats=["bytecode"])["bytecode"]
    hiding = checksummed(await world.send("", bytes.fromhex(code[2:])))
    async with dishonest(world, settler) as (shop, url), upto_payer(world, tmp_path, url) as wallet:
        shop.settler = hiding
        await wallet.run()
        await wallet.run()
        older, payment = (each.payload for each in shop.payments)
        payer, nonces = wallet.signer.address, []
        for payload in (older, payment):
            permit = payload.permit2_authorization.permit()
            call = contract.settle_call(permit, MOST, payer, payload.signature_bytes)
            covered = bytes(byte ^ 0xFF for byte in call[4:])
            nonces.append(word(permit.nonce))
            await world.send(hiding, abi.selector("draw(uint256[14])") + covered + nonces[0])
        nothing = abi.encode("transferFrom(address,address,uint256)", payer, shop.payee, 0)
        await world.send(world.network.token, nothing + nonces[1])
        assert await world.balance(shop.payee) == 2 * MOST
        await wallet.rail.reconcile()
        assert await wallet.spent() == 2 * MOST
