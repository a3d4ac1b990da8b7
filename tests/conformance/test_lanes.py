"""Lanes: our payer at servers that charge channels, the x402 SDK's own server among them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.chain_processes import KEYS, Node
from support.channel_market import channel_shop
from support.x402_market import (
    PATH,
    PRICE,
    Payer,
    World,
    answer,
    chain_of,
    facilitator,
    payer,
    payer_of,
    world_on,
)
from support.x402_sdk_client import CHARGE_HEADER, InThreads, stock_shop

from agentkit.errors import RunPaused
from agentkit.journal import records as r
from agentkit.keys.signer import KeySigner
from agentkit.payments.channels import contract
from agentkit.payments.channels.lanes import LaneRail
from agentkit.payments.closing import close_all
from agentkit.testing import Desk, ProviderConformance, RailConformance

ANVIL = pytest.param("anvil", marks=pytest.mark.anvil)
CHARGED = 600


@dataclass
class Stock:
    """The SDK's shop: what it did, and how many of its answers get lost."""

    url: str = ""
    works: int = 0
    lost: int = 0
    bodies: list[Any] = field(default_factory=list)

    async def work(self, request: web.Request) -> web.Response:
        self.works += 1
        self.bodies.append(await request.json())
        return web.json_response(answer(f"answer {self.works}"), headers={CHARGE_HEADER: "600"})

    def loses(self) -> bool:
        if not self.lost:
            return False
        self.lost -= 1
        return True


@pytest.fixture(scope="module", params=["embedded"])
def node(request: Any, tmp_path_factory: Any) -> Iterator[Node]:
    with chain_of(request.param, tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(node: Node) -> AsyncIterator[World]:
    async with world_on(node) as made:
        yield made


@pytest.fixture
async def stock(world: World) -> AsyncIterator[Stock]:
    shop = Stock()
    settles = InThreads(world, KEYS[3])
    key = secrets.token_bytes(32)
    async with stock_shop(world, settles, shop.work, channels=key, loses=shop.loses) as url:
        shop.url = url
        yield shop


@pytest.fixture
async def wallet(world: World, stock: Stock, tmp_path: Path) -> AsyncIterator[Payer]:
    async with payer(world, tmp_path, stock.url, lanes=True) as one:
        yield one


class TestLanes(ProviderConformance, RailConformance):
    @pytest.fixture
    def desk(self, wallet: Payer) -> Desk:
        return wallet.desk


async def lanes_of(wallet: Payer) -> list[r.Lane]:
    return await wallet.journal.commit(lambda tx: tx.every(r.Lane))


async def closed(wallet: Payer) -> dict[str, str]:
    return await close_all({wallet.rail.name: wallet.rail}, {"x402": wallet.provider}, idle=0.0)


@pytest.mark.parametrize("node", ["embedded", ANVIL], indirect=True, scope="module")
async def test_a_stock_server_charges_what_a_request_comes_to_and_the_rest_comes_back(
    world: World, stock: Stock, wallet: Payer
) -> None:
    first = await wallet.run()
    second = await wallet.run(prompt="and again")
    receipts = [*first.receipts, *second.receipts]
    assert [receipt.amount.units for receipt in receipts] == [CHARGED, CHARGED]
    assert {receipt.standing for receipt in receipts} == {"paid"}
    assert await wallet.spent() == 2 * CHARGED
    (lane,) = await lanes_of(wallet)
    assert (lane.charged, lane.attempt) == (2 * CHARGED, "")

    assert list((await closed(wallet)).values()) == ["closed"]
    assert await world.balance(wallet.signer.address) == 100 * PRICE - 2 * CHARGED
    state = await contract.channel_on(world.eyes, bytes.fromhex(lane.channel))
    assert (state.unclaimed, state.total_claimed) == (0, 2 * CHARGED)
    assert await world.eyes.balance(wallet.signer.address) == 0, "no gas of the payer's"


async def test_a_lost_answer_of_a_stock_server_is_charged_and_not_received(
    stock: Stock, wallet: Payer
) -> None:
    await wallet.run()
    stock.lost = 1
    with pytest.raises(RunPaused) as paused:
        await wallet.run(prompt="lost")
    assert paused.value.uncertain
    assert (stock.works, stock.lost) == (2, 0), "it was done once, and not bought again unasked"
    (lane,) = await lanes_of(wallet)
    assert (lane.charged, lane.attempt) == (2 * CHARGED, "")
    assert await wallet.spent() == 2 * CHARGED

    again = await wallet.resume(paused.value.run_id, rebuy=True)
    standings = [(x.standing, x.amount.units) for x in again.receipts]
    assert standings == [("charged, not received", CHARGED), ("paid", CHARGED)]
    assert stock.works == 3
    assert again.uncertain.units == CHARGED


async def test_a_request_that_never_arrived_is_sent_again_under_the_same_voucher(
    world: World, stock: Stock, tmp_path: Path
) -> None:
    """A payer that dies before its request leaves goes on with what it had signed."""
    async with payer(world, tmp_path, stock.url, lanes=True) as first:
        task, offer, attempt, payment = await first.sign()
        (lane,) = await lanes_of(first)
        again = await first.again(attempt)
        assert again.body["payload"] == payment.body["payload"]
        assert again.body["again"]
        await first.provider.submit(task, offer, attempt, again)
        result = await first.provider.result(attempt)
        await first.desk.settle(attempt, result)
        (lane,) = await lanes_of(first)
        assert (lane.charged, lane.ceiling) == (CHARGED, PRICE)
        assert stock.works == 1


async def test_concurrent_requests_have_a_lane_each(stock: Stock, wallet: Payer) -> None:
    graph_items = await wallet.run_many(6)
    assert sum(receipt.amount.units for receipt in graph_items.receipts) == 6 * CHARGED
    lanes = await lanes_of(wallet)
    assert len(lanes) == 2, "as many as the offer allows"
    assert sum(lane.charged for lane in lanes) == 6 * CHARGED
    salts = {lane.config["salt"] for lane in lanes}
    assert len(salts) == 2


async def test_leaving_one_server_leaves_the_channels_with_others_alone(wallet: Payer) -> None:
    await wallet.run()
    assert isinstance(wallet.rail, LaneRail)
    assert await wallet.rail.leave(KeySigner(KEYS[1]).address) == []
    (lane,) = await lanes_of(wallet)
    assert not lane.closing
    (message,) = await wallet.rail.leave(lane.payee)
    assert (message.verb, message.body["channel"]) == ("refund", lane.channel)
    (lane,) = await lanes_of(wallet)
    assert lane.closing


async def test_our_own_shop_gives_a_lost_answer_again(world: World, tmp_path: Path) -> None:
    async with (
        facilitator(world, tmp_path) as settles,
        channel_shop(world, tmp_path, settles, key=secrets.token_bytes(32), path=PATH) as shop,
        payer(world, tmp_path, shop.url.removesuffix(PATH), lanes=True) as wallet,
    ):
        shop.work.chat = lambda number: answer(f"answer {number}")
        shop.work.charge = CHARGED
        await wallet.run()
        shop.work.lose_answers = 1
        result = await wallet.run(prompt="lost")
        assert [x.standing for x in result.receipts] == ["paid"]
        assert (shop.work.done, shop.work.lose_answers) == (2, 0)
        assert await wallet.spent() == 2 * CHARGED
        assert list((await closed(wallet)).values()) == ["closed"]
        assert await world.balance(wallet.signer.address) == 100 * PRICE - 2 * CHARGED


@asynccontextmanager
async def payer_at(
    world: World, folder: Path, shop: Stock, settles: InThreads, key: bytes
) -> AsyncIterator[Payer]:
    """A wallet that bought once of a server that is gone since."""
    secret = secrets.token_bytes(32)
    await world.mint(KeySigner(secret).address, 100 * PRICE)
    async with (
        stock_shop(world, settles, shop.work, channels=key) as url,
        payer_of(world.network, folder, url, secret, lanes=True) as wallet,
    ):
        await wallet.run()
    async with payer_of(world.network, folder, url, secret, lanes=True) as wallet:
        yield wallet


async def test_a_silent_server_cannot_keep_what_is_left(tmp_path: Path) -> None:
    with chain_of("embedded", tmp_path) as alone:
        async with world_on(alone) as world:
            shop = Stock()
            settles = InThreads(world, KEYS[3])
            key = secrets.token_bytes(32)
            async with payer_at(world, tmp_path, shop, settles, key) as wallet:
                await world.fund(wallet.signer.address)
                (outcome,) = (await closed(wallet)).values()
                assert "comes back" in outcome
                (lane,) = await lanes_of(wallet)
                world.later(int(lane.config["withdrawDelay"]) + 1)
                assert lane.until
