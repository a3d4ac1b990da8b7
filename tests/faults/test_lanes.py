"""Servers that lie about a channel, lose their books or change their terms, and our payer at them.

What a wallet owns, has in channels and was charged is one sum, whatever happens.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.chain_processes import KEYS, Node
from support.channel_market import ChannelShop, channel_shop
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

from agentkit.errors import OfferExpired, RunPaused
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.keys.signer import KeySigner
from agentkit.money import Money
from agentkit.payments.channels import contract
from agentkit.payments.channels.lanes import LaneRail
from agentkit.payments.closing import close_all


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(node: Node) -> AsyncIterator[World]:
    async with world_on(node) as made:
        yield made


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> AsyncIterator[ChannelShop]:
    async with (
        facilitator(world, tmp_path) as url,
        channel_shop(world, tmp_path, url, key=secrets.token_bytes(32), path=PATH) as open_shop,
    ):
        open_shop.work.chat = lambda number: answer(f"answer {number}")
        yield open_shop


def address_of(shop: ChannelShop) -> str:
    return shop.url.removesuffix(PATH)


async def lanes_of(wallet: Payer) -> list[r.Lane]:
    return await wallet.journal.commit(lambda tx: tx.every(r.Lane))


async def closed(wallet: Payer) -> dict[str, str]:
    return await close_all({wallet.rail.name: wallet.rail}, {"x402": wallet.provider}, idle=0.0)


# -- a wallet from an older copy of its books ----------------------------------------------------


async def test_a_restored_wallet_goes_on_where_the_server_is(
    world: World, shop: ChannelShop, tmp_path: Path
) -> None:
    """After the copy it signed vouchers and a deposit that it knows nothing of any more."""
    key = secrets.token_bytes(32)
    owner = KeySigner(key).address
    await world.mint(owner, 100 * PRICE)
    shop.work.charge = 600
    folder, copy = tmp_path / "first", tmp_path / "second"
    async with payer_of(world.network, folder, address_of(shop), key, lanes=True) as wallet:
        await wallet.run()
    shutil.copytree(folder, copy)
    async with payer_of(world.network, folder, address_of(shop), key, lanes=True) as wallet:
        (before,) = await lanes_of(wallet)
        for number in range(20):  # more than the first deposit holds
            await wallet.run(prompt=f"number {number}")
        (lane,) = await lanes_of(wallet)
        assert lane.salt != before.salt
    async with payer_of(world.network, copy, address_of(shop), key, lanes=True) as wallet:
        restored = e.Restored(events=1, epoch=1)
        await wallet.journal.commit(lambda tx: tx.append(e.WALLET, restored))
        await wallet.run(prompt="after the restore")
        (lane,) = await lanes_of(wallet)
        state = await contract.channel_on(world.eyes, bytes.fromhex(lane.channel))
        assert (lane.balance + lane.deposit, lane.charged) == (state.balance, 22 * 600)
        for number in range(20):  # and it can deposit again
            await wallet.run(prompt=f"later {number}")
        assert set((await closed(wallet)).values()) == {"closed"}
        assert await world.balance(owner) == 100 * PRICE - 42 * 600
    assert shop.work.done == 42


# -- servers -------------------------------------------------------------------------------------


async def test_a_server_that_lost_its_books_is_bought_from_again(
    world: World, tmp_path: Path
) -> None:
    """It begins with what it had claimed; what it had not is lost to it."""
    seller, secret = secrets.token_bytes(32), secrets.token_bytes(32)
    await world.mint(KeySigner(secret).address, 100 * PRICE)
    async with facilitator(world, tmp_path) as settles:
        for name in ("first", "second"):
            async with (
                channel_shop(world, tmp_path / name, settles, key=seller, path=PATH) as shop,
                payer_of(world.network, tmp_path, address_of(shop), secret, lanes=True) as wallet,
            ):
                shop.work.chat = lambda number: answer(f"answer {number}")
                shop.work.charge = 600
                with suppress(RunPaused):  # where it finds out
                    await wallet.run()
                if not shop.work.done:
                    await wallet.run(prompt="the next one")
                (lane,) = await lanes_of(wallet)
                assert lane.charged == 600
                assert shop.work.done == 1


async def test_a_server_cannot_make_an_attempt_cost_more_than_its_most(
    world: World, shop: ChannelShop, tmp_path: Path
) -> None:
    """It shows an older, higher voucher, of which it had charged little."""
    async with payer(world, tmp_path, address_of(shop), lanes=True) as wallet:
        shop.work.charge = 1
        await wallet.run()
        (lane,) = await lanes_of(wallet)
        older = lane
        _, _, attempt, _ = await wallet.sign()
        cheap = attempt.model_copy(
            update={"id": "ab" * 32, "at_most": Money(10, world.network.currency)}
        )
        rail = wallet.rail
        assert isinstance(rail, LaneRail)
        await wallet.journal.commit(lambda tx: rail.release(tx, attempt, uncertain=False))
        await wallet.journal.commit(lambda tx: rail.reserve(tx, cheap))
        (question,) = await rail.questions(cheap)
        body = {
            "channel": lane.channel,
            "channelState": {
                "channelId": "0x" + lane.channel,
                "balance": str(lane.balance),
                "totalClaimed": "0",
                "chargedCumulativeAmount": str(older.ceiling),
            },
            "voucherState": {
                "signedMaxClaimable": str(older.promised),
                "signature": older.signature,
            },
        }
        await rail.finish(question.model_copy(update={"verb": "state", "body": body}))
        assert await rail.lookup(cheap) == "paid"
        charged = await wallet.journal.commit(lambda tx: rail.charged(tx, cheap))
        assert charged is not None
        assert charged <= cheap.at_most
        await wallet.journal.commit(lambda tx: rail.release(tx, cheap, uncertain=True))
        (lane,) = await lanes_of(wallet)
        assert (lane.charged, lane.attempt) == (older.ceiling, "")


async def test_a_deposit_that_may_still_be_drawn_keeps_its_channel_open(
    world: World, shop: ChannelShop, tmp_path: Path
) -> None:
    """The server draws it after the channel was given back."""
    async with payer(world, tmp_path, address_of(shop), lanes=True) as wallet:
        _, _, attempt, payment = await wallet.sign()
        await wallet.journal.commit(lambda tx: wallet.rail.release(tx, attempt, uncertain=False))
        outcome = await closed(wallet)
        (lane,) = await lanes_of(wallet)
        assert lane.open, outcome
        deposit = payment.body["payload"]["deposit"]
        drawing = deposit["authorization"]["erc3009Authorization"]
        data = contract.erc3009_data(
            0,
            int(drawing["validBefore"]),
            int(drawing["salt"], 16),
            bytes.fromhex(drawing["signature"][2:]),
        )
        config = contract.Config.model_validate(lane.config).terms()
        call = contract.deposit_call(
            config, int(deposit["amount"]), "0x4020806089470a89826cB9fB1f4059150b550004", data
        )
        await world.send(contract.SETTLEMENT, call)
        await closed(wallet)
        assert await world.balance(wallet.signer.address) == 100 * PRICE


async def test_a_voucher_goes_to_nobody_who_asks_for_another_channel(
    world: World, shop: ChannelShop, tmp_path: Path
) -> None:
    """Another server names the same payee, and an authorizer of its own."""
    async with payer(world, tmp_path, address_of(shop), lanes=True) as wallet:
        await wallet.run()
        task, offer, attempt, payment = await wallet.sign()
        before = shop.work.done
        sent: list[Any] = []
        client = wallet.provider._client
        requirement, send = client._agreed, client._send

        def other(*arguments: Any) -> Any:
            found = requirement(*arguments)
            assert found
            extra = {**found.extra, "receiverAuthorizer": KeySigner(KEYS[4]).address}
            return found.model_copy(update={"extra": extra})

        async def watched(request: Any, headers: dict[str, str], seconds: float) -> Any:
            sent.append(headers)
            return await send(request, headers, seconds)

        client._agreed, client._send = other, watched  # type: ignore[method-assign]
        with pytest.raises(OfferExpired):
            await wallet.provider.submit(task, offer, attempt, payment)
        assert not any(sent), "no payment left"
        assert shop.work.done == before
