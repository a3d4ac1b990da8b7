"""Strangers, broken facilitators and bad moments at a seller over channels: it is not robbed.

Each test is one way in which work could be done unpaid, or what was charged could not be claimed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chain_processes import Node
from support.channel_hand import ERROR, Hand, post
from support.channel_market import DELAY, PRICE, ChannelShop, asked, channel_shop, told
from support.delivery_channels import SALT
from support.x402_market import World, chain_of, facilitator, world_on

from agentkit.errors import ProtocolBroken, StoreUnavailable
from agentkit.keys.messages import checksummed
from agentkit.keys.signer import KeySigner
from agentkit.market.batch_settlement import Config
from agentkit.market.x402 import Payment402, Requirement, Settled, Verified
from agentkit.payments import abi
from agentkit.payments.channels import contract
from agentkit.payments.x402.remote import Facilitation


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(node: Node) -> AsyncIterator[World]:
    async with world_on(node) as made:
        yield made


@pytest.fixture
async def settles(world: World, tmp_path: Path) -> AsyncIterator[str]:
    async with facilitator(world, tmp_path) as url:
        yield url


@dataclass
class Broken:
    """A facilitator that may fail; `before` is called with each payload and may raise."""

    inner: Facilitation
    before: Callable[[Any], None] = lambda payload: None
    asked: list[Any] = field(default_factory=list)
    hold: asyncio.Event | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def verify(self, payment: Payment402, requirement: Requirement) -> Verified:
        return await self.inner.verify(payment, requirement)

    async def settle(self, payment: Payment402, requirement: Requirement) -> Settled:
        payload = payment.payload  # type: ignore[attr-defined]
        self.asked.append(payment)
        self.reached.set()
        if self.hold:
            await self.hold.wait()
        self.before(payload)
        return await self.inner.settle(payment, requirement)

    async def most_claims(self) -> int:
        return await self.inner.most_claims()

    async def close(self) -> None:
        await self.inner.close()


@asynccontextmanager
async def shop_at(
    world: World, folder: Path, settles: str, **more: Any
) -> AsyncIterator[tuple[ChannelShop, Broken]]:
    key = secrets.token_bytes(32)
    async with channel_shop(world, folder, settles, key=key, wrap=Broken, **more) as shop:
        assert isinstance(shop.remote, Broken)
        yield shop, shop.remote


async def payer_at(shop: ChannelShop, units: int = 30 * PRICE, **changes: Any) -> Hand:
    hand = Hand(shop.world, shop.signer.address, changes=changes)
    await hand.fill(units)
    return hand


async def reason_of(answer: httpx.Response) -> str:
    return str(asked(answer)["error"]).removeprefix(ERROR) if answer.status_code == 402 else ""


# -- refunds and purchases at once ---------------------------------------------------------------


async def test_a_refund_that_comes_with_a_purchase_does_not_take_its_money(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, _):
        hand = await payer_at(shop, PRICE)
        seller, gate = shop.seller, asyncio.Event()
        read = seller._journal.commit
        looked, looks = asyncio.Event(), 0

        async def slow(work: Any) -> Any:
            nonlocal looks
            found = await read(work)
            looks += 1
            if looks == 2:
                looked.set()
                await gate.wait()
            return found

        # The purchase has seen that no refund runs, and looks its channel up.
        seller._journal.commit = slow  # type: ignore[method-assign]
        buys = asyncio.create_task(post(shop.url, hand.header(PRICE)))
        await looked.wait()
        seller._journal.commit = read  # type: ignore[method-assign]
        backs = asyncio.create_task(post(shop.url, hand.header(0, kind="refund")))
        async with asyncio.timeout(30):
            while not (seller._refunding or backs.done()):
                await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(buys, backs)
        await shop.claiming.claim_all()
        assert await world.balance(shop.signer.address) == shop.work.done * PRICE


async def test_a_refund_that_was_signed_is_not_replaced_by_a_smaller_one(
    world: World, settles: str, tmp_path: Path
) -> None:
    """The facilitator says that it failed, and sends it when the money was spent."""
    async with shop_at(world, tmp_path, settles) as (shop, remote):
        hand = await payer_at(shop)
        assert (await post(shop.url, hand.header(PRICE))).status_code == 200
        whole: list[Payment402] = []

        def lies(payload: Any) -> None:
            whole.append(remote.asked[-1])
            raise ProtocolBroken("it failed, it says")

        remote.before = lies
        await post(shop.url, hand.header(PRICE, kind="refund"))
        await post(shop.url, hand.header(PRICE, kind="refund", amount="1"))
        remote.before = lambda payload: None
        await post(shop.url, hand.header(2 * PRICE))
        await remote.inner.settle(whole[0], whole[0].accepted)
        await shop.claiming.claim_all()
        assert await world.balance(shop.signer.address) == shop.work.done * PRICE


async def test_all_of_a_channel_comes_back_although_a_part_of_it_was_refused(
    world: World, settles: str, tmp_path: Path
) -> None:
    """A facilitator sends nothing that is not worth the gas."""
    async with shop_at(world, tmp_path, settles) as (shop, remote):
        hand = await payer_at(shop)

        def is_worth_it(payload: Any) -> None:
            if int(payload.amount) < 10_000:
                raise ProtocolBroken("it is not worth the gas")

        remote.before = is_worth_it
        part = await post(shop.url, hand.header(0, kind="refund", amount="1"))
        assert part.status_code == 503
        assert (await post(shop.url, hand.header(0, kind="refund"))).status_code == 200
        assert await world.balance(hand.signer.address) == 30 * PRICE


async def test_a_refund_is_finished_although_the_channel_was_charged_since(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, remote):
        hand = await payer_at(shop)
        shop.work.charge = 600
        assert (await post(shop.url, hand.header(PRICE))).status_code == 200

        def fails(payload: Any) -> None:
            raise StoreUnavailable("the facilitator is down")

        remote.before = fails
        back = await post(shop.url, hand.header(600, kind="refund", amount=str(20 * PRICE)))
        assert back.status_code == 503
        remote.before = lambda payload: None
        assert (await post(shop.url, hand.header(600 + PRICE))).status_code == 200
        await shop.claiming.watch()
        assert await world.balance(hand.signer.address) == 20 * PRICE
        (channel,) = await shop.sold()
        assert (channel.refunding, channel.charged, channel.total_claimed) == (0, 1200, 1200)


# -- channels that are paid on delivery ----------------------------------------------------------


async def test_the_voucher_of_a_delivery_buys_nothing_and_asks_nothing_back(
    world: World, settles: str, tmp_path: Path
) -> None:
    """A claim has made it public, and what it paid for was delivered before."""
    async with shop_at(world, tmp_path, settles) as (shop, _):
        hand = await payer_at(shop, salt=bytes.fromhex(SALT))
        for kind in ({}, {"kind": "refund"}):
            answer = await post(shop.url, hand.header(PRICE, **kind))
            assert await reason_of(answer) == "channel_id_mismatch"
        assert shop.work.done == 0


# -- claims that others prevent ------------------------------------------------------------------


def miswritten(address: str) -> str:
    """Return an address with a wrong checksum."""
    return "0x" + checksummed(address)[2:].swapcase()


async def test_a_payer_that_miswrites_its_terms_does_not_stop_the_claims_of_others(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, _):
        hand, honest = await payer_at(shop), await payer_at(shop)
        terms = Config.of(hand.config).document()
        terms["payerAuthorizer"] = miswritten(terms["payerAuthorizer"])
        terms["junk"] = "j" * 3000
        answer = await post(shop.url, hand.header(PRICE, channelConfig=terms))
        assert answer.status_code == 200
        assert (await post(shop.url, honest.header(PRICE))).status_code == 200
        await shop.claiming.claim_all()
        assert await world.balance(shop.signer.address) == 2 * PRICE
        assert all("junk" not in channel.config for channel in await shop.sold())


async def test_a_refund_that_cannot_be_sent_does_not_stop_the_claims_of_others(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, remote):
        hand, honest = await payer_at(shop), await payer_at(shop)
        assert (await post(shop.url, honest.header(PRICE))).status_code == 200

        def fails(payload: Any) -> None:
            if payload.type == "refund":
                raise StoreUnavailable("the facilitator answers 500")

        remote.before = fails
        await post(shop.url, hand.header(0, kind="refund"))
        await honest_withdraws(world, shop, honest)
        await shop.claiming.watch()
        assert await world.balance(shop.signer.address) == PRICE


async def honest_withdraws(world: World, shop: ChannelShop, hand: Hand) -> None:
    await world.fund(hand.signer.address)
    state = await contract.channel_on(world.eyes, hand.channel)
    await world.send_as(
        hand.key, contract.SETTLEMENT, contract.withdraw_call(hand.config, state.unclaimed)
    )


async def test_a_call_that_is_too_large_for_the_facilitator_is_split(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, remote):
        for _ in range(3):
            hand = await payer_at(shop)
            assert (await post(shop.url, hand.header(PRICE))).status_code == 200

        def is_small(payload: Any) -> None:
            if payload.type == "claim" and len(payload.claims) > 1:
                raise ProtocolBroken("the facilitator's answer to /settle cannot be read")

        remote.before = is_small
        await shop.claiming.claim_all()
        assert await world.balance(shop.signer.address) == 3 * PRICE


async def test_a_withdrawal_is_seen_at_the_next_look_if_the_chain_was_silent_at_the_first(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, _):
        hand = await payer_at(shop)
        assert (await post(shop.url, hand.header(PRICE))).status_code == 200
        await shop.claiming.watch()
        await honest_withdraws(world, shop, hand)
        call = shop.chain.call

        async def silent(to: str, data: bytes) -> bytes:
            raise StoreUnavailable("the chain does not answer")

        shop.chain.call = silent  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            await shop.claiming.watch()
        shop.chain.call = call  # type: ignore[method-assign]
        await shop.claiming.watch()
        assert await world.balance(shop.signer.address) == PRICE


async def test_what_is_left_after_a_withdrawal_that_nobody_saw_is_claimed(
    tmp_path: Path,
) -> None:
    with chain_of("embedded", tmp_path) as alone:
        async with (
            world_on(alone) as later,
            facilitator(later, tmp_path) as url,
            shop_at(later, tmp_path, url) as (shop, remote),
        ):
            hand = await payer_at(shop, 3 * PRICE)
            await later.fund(hand.signer.address)
            call = contract.withdraw_call(hand.config, PRICE)
            await later.send_as(hand.key, contract.SETTLEMENT, call)
            later.later(DELAY + 1)
            for ceiling in (1, 2):  # all that is not on its way back
                answer = await post(shop.url, hand.header(ceiling * PRICE))
                assert answer.status_code == 200
            call = contract.finish_withdraw_call(hand.config)
            await later.send_as(hand.key, contract.SETTLEMENT, call)
            call = contract.withdraw_call(hand.config, PRICE)
            await later.send_as(hand.key, contract.SETTLEMENT, call)
            later.later(DELAY + 1)
            call = contract.finish_withdraw_call(hand.config)
            await later.send_as(hand.key, contract.SETTLEMENT, call)
            await shop.claiming.claim_all()
            assert await later.balance(shop.signer.address) == PRICE, "what was left"
            asked_before = len(remote.asked)
            await shop.claiming.claim_all()
            assert len(remote.asked) == asked_before, "and not asked for again and again"


# -- what strangers get for nothing --------------------------------------------------------------


async def test_a_deposit_that_never_lands_leaves_nothing_in_the_books(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, _):
        hand = Hand(world, shop.signer.address)  # it has no money
        deposit = hand.deposit(30 * PRICE)
        answer = await post(shop.url, hand.header(PRICE, kind="deposit", deposit=deposit))
        assert answer.status_code == 402
        assert await shop.sold() == []


async def test_made_up_channels_are_looked_up_a_few_at_a_time(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, _):
        honest = await payer_at(shop)
        assert (await post(shop.url, honest.header(PRICE))).status_code == 200
        call, gate, running = shop.chain.call, asyncio.Event(), []

        async def slow(to: str, data: bytes) -> bytes:
            running.append(to)
            await gate.wait()
            return await call(to, data)

        shop.chain.call = slow  # type: ignore[method-assign]
        made_up = [
            asyncio.create_task(post(shop.url, Hand(world, shop.signer.address).header(PRICE)))
            for _ in range(20)
        ]
        async with asyncio.timeout(30):
            while sum(task.done() for task in made_up) < 12:
                await asyncio.sleep(0.01)
        assert len(running) <= 8 * 2
        # Whoever has money in a channel does not wait for them.
        (channel,) = await shop.sold()
        lookup = asyncio.create_task(
            shop.seller._mirror.read(honest.channel, contract.Config.model_validate(channel.config))
        )
        await asyncio.sleep(0.05)
        gate.set()
        assert (await lookup).balance == 30 * PRICE
        await asyncio.gather(*made_up)


async def test_a_wallet_that_nobody_trusts_is_not_asked_for_its_word(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, _):
        changes = {
            "payer": KeySigner(secrets.token_bytes(32)).address,
            "payer_authorizer": "0x" + 40 * "0",
        }
        hand = Hand(world, shop.signer.address, changes=changes)
        calls, call = [], shop.chain.call

        async def counted(to: str, data: bytes) -> bytes:
            calls.append(to)
            return await call(to, data)

        shop.chain.call = counted  # type: ignore[method-assign]
        answer = await post(shop.url, hand.header(PRICE))
        assert await reason_of(answer) == "voucher_signature"
        assert changes["payer"] not in calls


# -- a payer's voucher in other hands ------------------------------------------------------------


async def test_what_a_voucher_had_left_cannot_be_spent_by_who_has_seen_it(
    world: World, settles: str, tmp_path: Path
) -> None:
    """Vouchers are public once they were claimed, and do not say what they pay for."""
    prices = {"POST /cheap": 400}
    async with shop_at(world, tmp_path, settles, prices=prices) as (shop, _):
        hand = await payer_at(shop)
        shop.work.charge = 600
        seen = hand.header(PRICE)
        assert (await post(shop.url, seen)).status_code == 200
        await shop.claiming.claim_all()
        # 400 are promised and not charged, which is just what this costs.
        shop.work.charge = None
        stolen = await post(shop.url.replace("/work", "/cheap"), seen, {"ask": "theirs"})
        assert stolen.status_code == 402
        assert shop.work.done == 1
        (channel,) = await shop.sold()
        assert channel.charged == 600
        assert (await post(shop.url, hand.header(600 + PRICE))).status_code == 200


async def test_an_answer_is_not_given_to_who_knows_its_identifier(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, _):
        hand = await payer_at(shop)
        name = "identifier-of-a-request"
        mine = await post(shop.url, hand.header(PRICE, identifier=name))
        assert mine.json() == {"n": 1}
        # Terms that name the same payer, and another key to sign for it.
        key = secrets.token_bytes(32)
        changes = {"payer": hand.signer.address, "payer_authorizer": KeySigner(key).address}
        thief = Hand(world, shop.signer.address, key, changes)
        answer = await post(shop.url, thief.header(PRICE, identifier=name))
        assert answer.status_code == 402


async def test_who_cannot_sign_for_a_channel_learns_nothing_and_holds_nothing_up(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, _):
        hand = await payer_at(shop)
        assert (await post(shop.url, hand.header(PRICE))).status_code == 200
        unsigned = {**hand.voucher(0), "signature": "0x"}
        answer = await post(shop.url, hand.header(0, voucher=unsigned))
        assert await reason_of(answer) == "voucher_signature"
        assert "voucherState" not in asked(answer)["accepts"][0]["extra"]
        told_of = await post(shop.url, hand.header(0))  # its payer is told
        assert asked(told_of)["accepts"][0]["extra"]["voucherState"]["signature"]

        known, gate = shop.seller._mirror.known, asyncio.Event()

        async def slow(*channel: Any) -> Any:
            await gate.wait()
            return await known(*channel)

        shop.seller._mirror.known = slow  # type: ignore[method-assign]
        forged = asyncio.create_task(
            post(shop.url, hand.header(PRICE, kind="refund", voucher=unsigned))
        )
        await asyncio.sleep(0.1)
        shop.seller._mirror.known = known  # type: ignore[method-assign]
        answer = await post(shop.url, hand.header(2 * PRICE))
        gate.set()
        await forged
        assert answer.status_code == 200


# -- routes --------------------------------------------------------------------------------------


async def test_what_is_sold_by_get_is_answered_by_get(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles, prices={"GET /data": PRICE}) as (shop, _):
        hand = await payer_at(shop)
        async with httpx.AsyncClient(timeout=60) as plain:
            answer = await plain.get(shop.url.replace("/work", "/data"), headers=hand.header(PRICE))
        assert (answer.status_code, shop.work.done) == (200, 1)
        assert told(answer)["extra"]["chargedAmount"] == str(PRICE)


# -- looks at the chain --------------------------------------------------------------------------


@dataclass
class Moving:
    """A chain on which a channel's money goes back between two reads."""

    reads: int = 0
    after: int = 1

    async def call(self, to: str, data: bytes) -> bytes:
        self.reads += 1
        went_back = self.reads > self.after
        words = {
            "channels(bytes32)": (0 if went_back else 500, 0),
            "pendingWithdrawals(bytes32)": (0, 0) if went_back else (500, 1),
            "refundNonce(bytes32)": (1 if went_back else 0,),
        }
        (found,) = (w for name, w in words.items() if data[:4] == abi.selector(name))
        return b"".join(word.to_bytes(32, "big") for word in found)


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_a_look_while_money_goes_back_shows_none_of_it_as_free(after: int) -> None:
    seen = await contract.channel_on(Moving(after=after), bytes(32))  # type: ignore[arg-type]
    if seen.refund_nonce or not seen.withdrawing:  # the books take it as gone back
        assert seen.balance == 0


async def test_an_older_look_is_not_written_over_a_newer_one(
    world: World, settles: str, tmp_path: Path
) -> None:
    async with shop_at(world, tmp_path, settles) as (shop, _):
        hand = await payer_at(shop)
        assert (await post(shop.url, hand.header(PRICE))).status_code == 200
        (channel,) = await shop.sold()
        call, gate, looked = shop.chain.call, asyncio.Event(), asyncio.Event()

        async def slow(to: str, data: bytes) -> bytes:
            found = await call(to, data)
            looked.set()
            await gate.wait()
            return found

        shop.chain.call = slow  # type: ignore[method-assign]
        older = asyncio.create_task(shop.claiming._read(channel))
        await looked.wait()
        shop.chain.call = call  # type: ignore[method-assign]
        back = asyncio.create_task(post(shop.url, hand.header(PRICE, kind="refund")))
        while not await world.balance(hand.signer.address):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        gate.set()
        await older
        assert (await back).status_code == 200
        (channel,) = await shop.sold()
        assert (channel.balance, channel.refund_nonce) == (PRICE, 1)
        assert (await post(shop.url, hand.header(2 * PRICE))).status_code == 402
