"""A shop of ours by `batch-settlement`, with the x402 SDK's own client as its customer."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chain_processes import Node
from support.channel_market import (
    DELAY,
    PRICE,
    ChannelShop,
    StockClient,
    Work,
    asked,
    channel_shop,
    stock_client,
    told,
)
from support.timing import limit
from support.x402_market import World, chain_of, facilitator, world_on
from x402.http.clients.httpx import PaymentError
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header

from agentkit.journal import events as e
from agentkit.keys.channel_messages import ChannelVoucher
from agentkit.keys.signer import KeySigner
from agentkit.money import Money
from agentkit.payments.channels import contract
from agentkit.payments.channels.claiming import ClaimPolicy, Earnings

ANVIL = pytest.param("anvil", marks=pytest.mark.anvil)
MISMATCH = "invalid_batch_settlement_evm_cumulative_amount_mismatch"


@pytest.fixture(scope="module", params=["embedded"])
def node(request: Any, tmp_path_factory: Any) -> Iterator[Node]:
    with chain_of(request.param, tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(node: Node) -> AsyncIterator[World]:
    async with world_on(node) as made:
        yield made


@pytest.fixture
async def settles(world: World, tmp_path: Path) -> AsyncIterator[str]:
    async with facilitator(world, tmp_path) as url:
        yield url


@pytest.fixture
async def store(world: World, settles: str, tmp_path: Path) -> AsyncIterator[ChannelShop]:
    key = secrets.token_bytes(32)
    async with channel_shop(world, tmp_path, settles, key=key) as shop:
        yield shop


@pytest.fixture
async def buyer(world: World) -> AsyncIterator[StockClient]:
    key = secrets.token_bytes(32)
    await world.mint(KeySigner(key).address, 1000 * PRICE)
    async with stock_client(world, key) as client:
        yield client


async def header_for(buyer: StockClient, url: str, **voucher: str) -> dict[str, str]:
    """Return the header with the SDK's next payment, its voucher changed."""
    async with httpx.AsyncClient() as plain:
        first = await plain.post(url, json={"ask": 1})
    required = decode_payment_required_header(first.headers["PAYMENT-REQUIRED"])
    payment = await buyer.client.create_payment_payload(required)
    payment.payload["voucher"] |= voucher
    return {"PAYMENT-SIGNATURE": encode_payment_signature_header(payment)}


async def send(url: str, headers: dict[str, str], body: Any = None) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as plain:
        return await plain.post(url, json=body or {"ask": 1}, headers=headers)


@pytest.mark.parametrize("node", ["embedded", ANVIL], indirect=True, scope="module")
async def test_a_stock_client_buys_claims_are_paid_out_and_the_rest_comes_back(
    world: World, store: ChannelShop, buyer: StockClient
) -> None:
    store.work.charge = 700  # metered: less than the most of 1,000
    answers = [await buyer.buy(store.url) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [200] * 21
    assert [told(answer)["extra"]["chargedAmount"] for answer in answers] == ["700"] * 21
    charged = 21 * 700

    await store.claiming.claim_all()
    assert await world.balance(store.signer.address) == charged
    (channel,) = await store.sold()
    left = channel.balance - charged
    assert left > 0
    back = await asyncio.to_thread(buyer.scheme.refund, store.url)
    assert (back.success, back.amount) == (True, str(left))
    assert await world.balance(buyer.address) == 1000 * PRICE - charged
    assert await world.eyes.balance(buyer.address) == 0, "no gas of the payer's"
    assert await world.eyes.balance(store.signer.address) == 0, "none of the seller's"
    (channel,) = await store.sold()
    state = await contract.channel_on(world.eyes, bytes.fromhex(channel.channel))
    assert (state.balance, state.total_claimed) == (charged, charged)
    assert Earnings.of([channel]).claimed == charged

    again = await buyer.buy(store.url)  # the same channel is filled again, and goes on
    assert told(again)["extra"]["channelState"]["chargedCumulativeAmount"] == str(charged + 700)


async def test_a_lost_answer_is_given_again_and_charged_once(
    store: ChannelShop, buyer: StockClient
) -> None:
    """The stock client sends a new voucher; ours is told by the same voucher, and asks with it."""
    assert (await buyer.buy(store.url)).status_code == 200
    headers = await header_for(buyer, store.url)
    store.work.lose_answers = 1
    with pytest.raises(httpx.HTTPError):
        await send(store.url, headers)
    assert (store.work.done, store.work.lose_answers) == (2, 0), "the answer was lost"

    again = await send(store.url, headers)
    assert (again.status_code, again.json()) == (200, {"n": 2})
    assert store.work.done == 2
    assert told(again)["extra"]["chargedAmount"] == str(PRICE)
    (channel,) = await store.sold()
    assert channel.charged == 2 * PRICE

    other = await send(store.url, headers, {"ask": 2})
    assert (other.status_code, asked(other)["error"]) == (402, MISMATCH)
    assert store.work.done == 2


async def test_a_payer_that_lost_an_answer_goes_on_by_itself(
    store: ChannelShop, buyer: StockClient
) -> None:
    await buyer.buy(store.url)
    store.work.lose_answers = 1
    with pytest.raises(PaymentError, match="disconnected"):
        await buyer.buy(store.url)
    # It signs the same voucher for the same request, so it gets the answer that was lost.
    assert (await buyer.buy(store.url)).json() == {"n": 2}
    assert (await buyer.buy(store.url)).json() == {"n": 3}
    (channel,) = await store.sold()
    assert channel.charged == 3 * PRICE


async def test_where_a_channel_stands_can_be_asked_by_a_voucher_over_nothing(
    world: World, store: ChannelShop, buyer: StockClient
) -> None:
    await buyer.buy(store.url)
    (channel,) = await store.sold()
    nothing = ChannelVoucher(bytes.fromhex(channel.channel), 0)
    signature = KeySigner(buyer.key).sign_channel_voucher(world.network.settlement_domain, nothing)
    answer = await send(
        store.url,
        await header_for(
            buyer, store.url, maxClaimableAmount="0", signature="0x" + signature.hex()
        ),
    )
    assert (answer.status_code, asked(answer)["error"]) == (402, MISMATCH)
    extra = asked(answer)["accepts"][0]["extra"]
    assert extra["channelState"]["chargedCumulativeAmount"] == str(PRICE)
    assert extra["voucherState"]["signedMaxClaimable"] == str(PRICE)
    assert store.work.done == 1, "no handler ran"


async def test_the_same_request_joins_the_running_one_and_another_waits(
    store: ChannelShop, buyer: StockClient
) -> None:
    await buyer.buy(store.url)
    headers = await header_for(buyer, store.url)
    store.work.gate, store.work.started = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(send(store.url, headers))
    await store.work.started.wait()
    joined = [asyncio.create_task(send(store.url, headers)) for _ in range(3)]
    busy = await send(store.url, headers, {"ask": 2})
    assert asked(busy)["error"] == "invalid_batch_settlement_evm_channel_busy"
    store.work.gate.set()
    answers = await asyncio.gather(running, *joined)
    assert [answer.json() for answer in answers] == [{"n": 2}] * 4
    assert store.work.done == 2
    (channel,) = await store.sold()
    assert channel.charged == 2 * PRICE


@pytest.mark.parametrize("status", [400, 500])
async def test_a_failed_request_costs_nothing_and_its_voucher_is_good_again(
    store: ChannelShop, buyer: StockClient, status: int
) -> None:
    await buyer.buy(store.url)
    headers = await header_for(buyer, store.url)
    store.work.status = status
    assert (await send(store.url, headers)).status_code == status
    store.work.status = 200
    assert (await send(store.url, headers)).status_code == 200
    (channel,) = await store.sold()
    assert channel.charged == 2 * PRICE


async def test_vouchers_that_promise_less_or_more_or_nothing_are_refused(
    world: World, store: ChannelShop, buyer: StockClient
) -> None:
    await buyer.buy(store.url)
    good = await header_for(buyer, store.url)
    stranger = secrets.token_bytes(32)
    async with stock_client(world, stranger) as other:
        forged = await header_for(other, store.url)
        answer = await send(store.url, forged)  # it has no money at all
        assert answer.status_code == 402
    for changes in (
        {"maxClaimableAmount": str(2 * PRICE - 1)},
        {"maxClaimableAmount": str(2 * PRICE + 1)},
        {"maxClaimableAmount": str(2**128 - 1)},
        {"signature": "0x" + "11" * 65},
        {"signature": "0x"},
        {"channelId": "0x" + "22" * 32},
    ):
        answer = await send(store.url, await header_for(buyer, store.url, **changes))
        assert answer.status_code == 402, changes
    assert store.work.done == 1
    assert (await send(store.url, good)).status_code == 200


@pytest.fixture
async def later(tmp_path: Path) -> AsyncIterator[World]:
    """A world of its own, whose clock a test may put forward."""
    with chain_of("embedded", tmp_path) as alone:
        async with world_on(alone) as made:
            yield made


async def test_money_on_its_way_back_buys_nothing_and_what_is_owed_is_claimed_first(
    later: World, tmp_path: Path
) -> None:
    key, seller = secrets.token_bytes(32), secrets.token_bytes(32)
    payer = KeySigner(key).address
    await later.mint(payer, 1000 * PRICE)
    async with (
        facilitator(later, tmp_path) as url,
        channel_shop(later, tmp_path, url, key=seller) as shop,
        stock_client(later, key) as buyer,
    ):
        for _ in range(3):
            await buyer.buy(shop.url)
        (channel,) = await shop.sold()
        await shop.claiming.watch()
        assert await later.balance(shop.signer.address) == 0, "nothing is due yet"

        config = contract.Config.model_validate(channel.config).terms()
        await later.fund(payer)
        withdraw = contract.withdraw_call(config, channel.balance)
        await later.send_as(key, contract.SETTLEMENT, withdraw)
        await shop.claiming.watch()
        assert await later.balance(shop.signer.address) == 3 * PRICE
        answer = await buyer.buy(shop.url)
        assert answer.status_code == 402, "what is left may be gone before it is claimed"
        assert shop.work.done == 3

        later.later(DELAY + 1)
        await later.send_as(key, contract.SETTLEMENT, contract.finish_withdraw_call(config))
        assert await later.balance(payer) == 997 * PRICE


async def test_many_channels_are_claimed_in_few_calls_and_a_bad_one_stands_alone(
    world: World, settles: str, tmp_path: Path
) -> None:
    """Thirty channels; the vouchers of one are worth nothing any more."""
    policy = ClaimPolicy(units=1, rows=10)
    key = secrets.token_bytes(32)
    async with channel_shop(world, tmp_path, settles, key=key, policy=policy) as shop:
        payer = secrets.token_bytes(32)
        await world.mint(KeySigner(payer).address, 1000 * PRICE)
        for number in range(30):
            salt = f"0x{number + 1:064x}"
            async with stock_client(world, payer, salt=salt) as buyer:
                assert (await buyer.buy(shop.url)).status_code == 200
        spoiled = (await shop.sold())[7]
        forged = e.RequestCharged(
            channel=spoiled.channel,
            ceiling=spoiled.ceiling + 1,
            signature=spoiled.signature,
            charge=Money(1, world.network.currency),
            total=spoiled.charged + 1,
            request="",
        )
        await shop.journal.commit(lambda tx: tx.append(e.NODE, forged))
        await shop.claiming.watch()
        assert await world.balance(shop.signer.address) == 29 * PRICE
        unclaimed = [channel.channel for channel in await shop.sold() if channel.unclaimed]
        assert unclaimed == [spoiled.channel]


async def test_a_seller_that_was_killed_goes_on_with_its_books(
    world: World, settles: str, tmp_path: Path, buyer: StockClient
) -> None:
    key = secrets.token_bytes(32)
    async with channel_shop(world, tmp_path, settles, key=key) as shop:
        assert (await buyer.buy(shop.url)).status_code == 200
        headers = await header_for(buyer, shop.url)
        first = await send(shop.url, headers)
        assert first.status_code == 200, asked(first)
    async with channel_shop(world, tmp_path, settles, key=key, work=Work()) as shop:
        again = await send(shop.url, headers)
        assert (again.json(), shop.work.done) == (first.json(), 0)
        assert told(again) == told(first)
        assert (await buyer.buy(shop.url, {"ask": 3})).status_code == 200
        await shop.claiming.claim_all()
        assert await world.balance(shop.signer.address) == 3 * PRICE


NPM = Path(__file__).parents[1] / "npm"
NEEDS_NODE = pytest.mark.skipif(
    not (NPM / "node_modules" / "@x402").is_dir() or not shutil.which("node"),
    reason="the x402 project's JavaScript client is not installed: tests/npm/install",
)


async def javascript(world: World, key: bytes, url: str, calls: int, *more: str) -> list[Any]:
    """Have the JavaScript client buy; returns what it printed, a line each."""
    process = await asyncio.create_subprocess_exec(
        *("node", str(NPM / "x402-client.mjs"), url, world.network.rpc, "0x" + key.hex()),
        *(world.network.token, str(world.network.chain_id), str(calls), *more),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), limit(60))
    assert process.returncode == 0
    return [json.loads(line) for line in said.splitlines()]


@NEEDS_NODE
@pytest.mark.parametrize("node", ["embedded", ANVIL], indirect=True, scope="module")
async def test_the_javascript_client_buys_and_gets_the_rest_back(
    world: World, store: ChannelShop
) -> None:
    key = secrets.token_bytes(32)
    await world.mint(KeySigner(key).address, 1000 * PRICE)
    store.work.charge = 700
    *bought, back = await javascript(world, key, store.url, 12, "refund")
    assert [(line["status"], line["charged"]) for line in bought] == [(200, "700")] * 12
    (channel,) = await store.sold()
    assert (back["refunded"], channel.balance) == (True, 12 * 700)
    assert await world.balance(KeySigner(key).address) == 1000 * PRICE - 12 * 700
    await store.claiming.claim_all()
    assert await world.balance(store.signer.address) == 12 * 700


@NEEDS_NODE
async def test_a_javascript_client_that_lost_its_books_gets_the_same_answers_again(
    world: World, store: ChannelShop
) -> None:
    """Another process of it knows only the chain, so it signs the same vouchers again."""
    key = secrets.token_bytes(32)
    await world.mint(KeySigner(key).address, 1000 * PRICE)
    first = await javascript(world, key, store.url, 3)
    assert await javascript(world, key, store.url, 3) == first
    (channel,) = await store.sold()
    assert (channel.charged, store.work.done) == (3 * PRICE, 3)
