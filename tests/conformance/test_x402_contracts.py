"""The stock SDK's client, shop and facilitator over HTTP, against our contracts on real chains."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.chain_processes import KEYS, Node
from support.x402_market import World, chain_of, world_on
from support.x402_sdk_channels import (
    DEPOSIT_FACTOR,
    Onlooker,
    StockFacilitator,
    stock_channel_payer,
    stock_channel_shop,
)
from x402.mechanisms.evm.batch_settlement.constants import BATCH_SETTLEMENT_ADDRESS
from x402.mechanisms.evm.batch_settlement.facilitator.utils import to_contract_channel_config
from x402.mechanisms.evm.batch_settlement.types import ChannelConfig

from agentkit.keys.signer import KeySigner
from agentkit.testing.rpc import SENDING, FaultyRpc

PRICE = 1000
UNITS = 10**6
FACILITATOR, AUTHORIZER = KEYS[2], KEYS[3]
VOUCHERS = 20
DELAY = 900

pytestmark = pytest.mark.parametrize(
    "kind", ["embedded", pytest.param("anvil", marks=pytest.mark.anvil)], scope="module"
)


@pytest.fixture(scope="module")
def node(kind: str, tmp_path_factory: Any) -> Iterator[Node]:
    with chain_of(kind, tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(node: Node) -> AsyncIterator[World]:
    async with world_on(node) as made:
        yield made


@pytest.mark.parametrize("permit2", [False, True], ids=["erc3009", "permit2"])
async def test_a_channels_life_with_the_stock_sdk(world: World, permit2: bool) -> None:
    """Deposit, 20 vouchers, claim, settlement, cooperative refund: exact, and without a coin."""
    facilitator, onlooker = StockFacilitator(world, FACILITATOR), Onlooker(world)
    key = secrets.token_bytes(32)
    before = await world.balance(BATCH_SETTLEMENT_ADDRESS)
    calls = 0

    def work() -> int:
        nonlocal calls
        calls += 1
        return PRICE if calls % 2 else PRICE // 2

    async with (
        stock_channel_shop(
            world, facilitator, work, price=PRICE, authorizer=AUTHORIZER, permit2=permit2
        ) as shop,
        stock_channel_payer(world, key, UNITS, most=10 * PRICE) as payer,
    ):
        for _ in range(1 + VOUCHERS):
            assert await payer.get(shop.url) == 200
        charged = PRICE * 11 + PRICE // 2 * 10
        assert (calls, payer.charged()) == (1 + VOUCHERS, charged)
        assert len(facilitator.done("deposit")) == 1
        assert await world.balance(payer.address) == UNITS - DEPOSIT_FACTOR * PRICE

        assert shop.manager
        assert await shop.manager.claim()
        channel = payer.told[0]["extra"]["channelState"]["channelId"]
        assert onlooker.state(channel) == (DEPOSIT_FACTOR * PRICE, charged)
        assert await world.earned() == 0
        await shop.manager.settle()
        assert await world.earned() == charged

        refunded = await payer.refund(shop.url)
        assert (refunded.success, refunded.error_reason) == (True, None)
        assert int(refunded.amount) == DEPOSIT_FACTOR * PRICE - charged
        assert onlooker.state(channel) == (charged, charged)
        assert await world.balance(payer.address) == UNITS - charged
        assert await world.balance(BATCH_SETTLEMENT_ADDRESS) == before

        # It is used again after a refund, with a deposit of its own.
        assert await payer.get(shop.url) == 200
        assert len(facilitator.done("deposit")) == 2
        assert onlooker.coins(payer.address) == onlooker.coins(world.payee) == 0
        assert [done.error_reason for _, done in facilitator.settled if not done.success] == []


async def test_a_refund_brings_the_last_claim_along(world: World) -> None:
    """Nothing was claimed when the payer asks: claim and refund are one transaction."""
    facilitator, onlooker = StockFacilitator(world, FACILITATOR), Onlooker(world)
    async with (
        stock_channel_shop(
            world, facilitator, lambda: PRICE, price=PRICE, authorizer=AUTHORIZER
        ) as shop,
        stock_channel_payer(world, secrets.token_bytes(32), UNITS, most=10 * PRICE) as payer,
    ):
        for _ in range(3):
            assert await payer.get(shop.url) == 200
        refunded = await payer.refund(shop.url)
        assert refunded.success, refunded
        assert int(refunded.amount) == (DEPOSIT_FACTOR - 3) * PRICE
        channel = payer.told[0]["extra"]["channelState"]["channelId"]
        assert onlooker.state(channel) == (3 * PRICE, 3 * PRICE)
        assert await world.balance(payer.address) == UNITS - 3 * PRICE
        assert facilitator.done("claim") == []
        assert shop.manager
        await shop.manager.settle()
        assert await world.earned() == 3 * PRICE


@pytest.mark.parametrize(("scheme", "charge"), [("upto", 0), ("upto", 400), ("exact", PRICE)])
async def test_one_payment_by_permit2_with_the_stock_sdk(
    world: World, scheme: str, charge: int
) -> None:
    """The payer owns no coin and has approved nothing: the facilitator brings both signatures."""
    facilitator, onlooker = StockFacilitator(world, FACILITATOR), Onlooker(world)
    async with (
        stock_channel_shop(
            *(world, facilitator, lambda: charge),
            price=PRICE,
            authorizer=AUTHORIZER,
            scheme=scheme,
            permit2=True,
        ) as shop,
        stock_channel_payer(world, secrets.token_bytes(32), UNITS, most=10 * PRICE) as payer,
    ):
        for number in (1, 2):
            assert await payer.get(shop.url) == 200
            assert payer.told[-1]["success"], payer.told
            assert await world.earned() == number * charge
        assert await world.balance(payer.address) == UNITS - 2 * charge
        assert onlooker.coins(payer.address) == 0


class LastFirst(FaultyRpc):
    """Holds what is sent for a moment, and forwards the last of it first."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream, "")
        self._held: list[tuple[bytes, asyncio.Future[Any]]] = []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if json.loads(body)["method"] != SENDING:
            return web.json_response(await self._forward(body))
        answer = asyncio.get_running_loop().create_future()
        self._held.append((body, answer))
        if len(self._held) == 1:
            asyncio.get_running_loop().call_later(0.3, lambda: asyncio.ensure_future(self._go()))
        return web.json_response(await answer)

    async def _go(self) -> None:
        held, self._held = self._held, []
        self.reached += len(held) - 1
        for body, answer in reversed(held):
            answer.set_result(await self._forward(body))


async def test_sixteen_deposits_at_once_do_not_get_stuck(world: World) -> None:
    """The facilitator numbers its transactions itself; they arrive in any order."""
    async with LastFirst(world.network.rpc) as rpc, AsyncExitStack() as stack:
        disordered = replace(world, network=world.network.model_copy(update={"rpc": rpc.url}))
        facilitator = await asyncio.to_thread(StockFacilitator, disordered, FACILITATOR)
        shop = await stack.enter_async_context(
            stock_channel_shop(
                world, facilitator, lambda: PRICE, price=PRICE, authorizer=AUTHORIZER
            )
        )
        payers = []
        for number in range(16):
            key = secrets.token_bytes(32)
            payer = stock_channel_payer(world, key, UNITS, most=10 * PRICE, salt=number)
            payers.append(await stack.enter_async_context(payer))
        first = await asyncio.gather(*(payer.get(shop.url) for payer in payers))
        second = await asyncio.gather(*(payer.get(shop.url) for payer in payers))
        reasons = [done.error_message for _, done in facilitator.settled if not done.success]
        assert (first, second, reasons) == ([200] * 16, [200] * 16, [])
        assert len(set(facilitator.done("deposit"))) == 16
        assert rpc.reached >= 8
        assert shop.manager
        await shop.manager.claim_and_settle()
        assert await world.earned() == 32 * PRICE


async def test_a_payer_gets_the_rest_by_time_alone(kind: str, tmp_path: Path) -> None:
    """The shop claims while the withdrawal runs; what it left is the payer's after the delay."""
    with chain_of(kind, tmp_path) as own_node:  # its clock is moved
        async with world_on(own_node) as world:
            await withdraw(world)


async def withdraw(world: World) -> None:
    facilitator, onlooker = StockFacilitator(world, FACILITATOR), Onlooker(world)
    key = KEYS[1]  # it has coins: a withdrawal is sent by the payer itself
    async with (
        stock_channel_shop(
            world, facilitator, lambda: PRICE, price=PRICE, authorizer=AUTHORIZER
        ) as shop,
        stock_channel_payer(world, key, UNITS, most=10 * PRICE) as payer,
    ):
        for _ in range(3):
            assert await payer.get(shop.url) == 200
        channel = payer.told[0]["extra"]["channelState"]["channelId"]
        config = to_contract_channel_config(
            ChannelConfig(
                payer=payer.address,
                payer_authorizer=payer.address,
                receiver=world.payee,
                receiver_authorizer=KeySigner(AUTHORIZER).address,
                token=world.network.token,
                withdraw_delay=DELAY,
                salt="0x" + bytes(32).hex(),
            )
        )
        assert onlooker.contract.functions.getChannelId(config).call().hex() == channel[2:]
        whole = DEPOSIT_FACTOR * PRICE
        calls = onlooker.contract.functions
        assert onlooker.send(key, calls.initiateWithdraw(config, whole))["status"] == 1
        world.later(DELAY - 60)
        with pytest.raises(Exception, match="0x"):
            calls.finalizeWithdraw(config).call({"from": payer.address})
        assert shop.manager
        await shop.manager.claim_and_settle()
        world.later(120)
        assert onlooker.send(key, calls.finalizeWithdraw(config))["status"] == 1
        assert onlooker.state(channel) == (3 * PRICE, 3 * PRICE)
        assert await world.earned() == 3 * PRICE
        assert await world.balance(payer.address) == UNITS - 3 * PRICE
        assert await world.balance(BATCH_SETTLEMENT_ADDRESS) == 0
