"""x402 `upto`: the SDK's client buys from our seller, and our facilitator settles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.chain_processes import Node
from support.timing import limit
from support.upto_market import MOST, Meter, StockUptoPayer, UptoShop, upto_shop
from support.x402_market import World, chain_of, facilitator, world_on

from agentkit.errors import StoreUnavailable
from agentkit.journal import records as r
from agentkit.keys.permit2_messages import PERMIT2, permit2_domain
from agentkit.keys.signer import KeySigner
from agentkit.market.offer_receipt import receipt_in
from agentkit.market.upto import UptoPayment
from agentkit.market.x402 import REQUIRED, SIGNATURE, Challenge, Requirement, Settled, Verified
from agentkit.payments import abi
from agentkit.payments.chain import Web3Chain
from agentkit.payments.upto.seller import UptoSeller
from agentkit.payments.x402.remote import Facilitator
from agentkit.serve.earnings import read_figures

ANVIL = pytest.param("anvil", marks=pytest.mark.anvil)
CHARGE = 250


@pytest.fixture(scope="module", params=["embedded"])
def node(request: Any, tmp_path_factory: Any) -> Iterator[Node]:
    with chain_of(request.param, tmp_path_factory.mktemp("chain")) as running:
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
    async with upto_shop(world, tmp_path, settler) as shop:
        yield shop


@pytest.fixture
async def payer(world: World) -> AsyncIterator[StockUptoPayer]:
    async with aiohttp.ClientSession() as session:
        made = StockUptoPayer(world, session)
        await made.fill(10 * MOST)
        yield made


@pytest.mark.parametrize("node", ["embedded", ANVIL], indirect=True, scope="module")
async def test_the_sdks_client_pays_what_was_metered(
    world: World, store: UptoShop, payer: StockUptoPayer
) -> None:
    bought = await payer.buy(store.url)
    assert (bought.status, json.loads(bought.body)) == (200, {"answer": 1})
    settled = bought.settled
    assert (settled.amount, settled.payer) == (str(CHARGE), payer.address)
    assert await store.earned() == CHARGE
    assert await world.balance(payer.address) == 10 * MOST - CHARGE
    signed = receipt_in(
        settled,
        payee=store.payee,
        payer=payer.address,
        network=world.network.id,
        path="/v1/chat/completions",
    )
    assert signed is not None
    assert signed.payload.transaction == settled.transaction


async def test_the_same_payment_again_is_the_same_answer_and_no_work(
    store: UptoShop, payer: StockUptoPayer
) -> None:
    headers = await payer.sign(store.url, {"ask": 1})
    first, *others = await asyncio.gather(
        *(payer.present(store.url, {"ask": 1}, headers) for _ in range(5))
    )
    assert first.status == 200
    assert others == [first] * 4
    assert await payer.present(store.url, {"ask": 1}, headers) == first
    assert (await payer.present(store.url, {"ask": 2}, headers)).status == 409
    assert store.meter.works == 1
    assert await store.earned() == CHARGE


async def test_what_costs_nothing_moves_nothing(store: UptoShop, payer: StockUptoPayer) -> None:
    store.meter.charge = 0
    bought = await payer.buy(store.url)
    assert (bought.status, bought.settled.amount, bought.settled.transaction) == (200, "0", "")
    assert bought.settled.extensions is None  # nothing was paid, so there is no receipt
    assert await store.earned() == 0


async def test_never_more_than_the_most_is_taken(store: UptoShop, payer: StockUptoPayer) -> None:
    store.meter.charge = 5 * MOST
    assert (await payer.buy(store.url)).settled.amount == str(MOST)
    assert await store.earned() == MOST


async def test_an_error_is_not_charged_and_the_payment_stays_good(
    store: UptoShop, payer: StockUptoPayer
) -> None:
    store.meter.status = 500
    headers = await payer.sign(store.url, {"ask": 1})
    assert (await payer.present(store.url, {"ask": 1}, headers)).status == 500
    assert await store.earned() == 0
    store.meter.status = 200
    assert (await payer.present(store.url, {"ask": 1}, headers)).status == 200
    assert await store.earned() == CHARGE


async def refused(payer: StockUptoPayer, shop: UptoShop, headers: dict[str, str]) -> str:
    """Present a payment that does not count; returns the reason in the 402."""
    async with payer.session.post(
        shop.url + "/v1/chat/completions", json={"ask": 1}, headers=headers
    ) as said:
        assert said.status == 402, await said.read()
        return Challenge.read(said.headers[REQUIRED]).error or ""


async def test_without_an_allowance_nothing_is_done(
    world: World, store: UptoShop, payer: StockUptoPayer
) -> None:
    poor = StockUptoPayer(world, payer.session)
    await poor.fill(10 * MOST, approves=False)
    reason = await refused(poor, store, await poor.sign(store.url, {"ask": 1}))
    assert reason == "permit2_allowance_required"
    assert store.meter.works == 0


async def test_one_balance_shown_with_many_payments_buys_once(
    world: World, store: UptoShop, payer: StockUptoPayer
) -> None:
    """Each of the payments verifies alone; the most of all of them has to be there."""
    short = StockUptoPayer(world, payer.session)
    await short.fill(MOST + MOST // 2)
    bodies = [{"ask": n} for n in range(4)]
    signed = [await short.sign(store.url, body) for body in bodies]
    together = asyncio.Event()

    async def wait() -> None:
        await together.wait()

    store.meter.during = wait
    tasks = [
        asyncio.create_task(short.present(store.url, body, headers))
        for body, headers in zip(bodies, signed, strict=True)
    ]
    done: set[asyncio.Task[Any]] = set()
    async with asyncio.timeout(limit(20)):
        while len(done) < 3:
            more, _ = await asyncio.wait(set(tasks) - done, return_when=asyncio.FIRST_COMPLETED)
            done |= more
    assert {task.result().status for task in done} == {402}
    together.set()
    assert sorted(task.status for task in await asyncio.gather(*tasks)) == [200, 402, 402, 402]
    assert store.meter.works == 1


def changed(headers: dict[str, str], **places: Any) -> dict[str, str]:
    """Return a payment with fields changed, `permitted__amount` for one that lies deeper."""
    payment = UptoPayment.read(headers[SIGNATURE]).document()
    for place, value in places.items():
        *path, last = place.split("__")
        inner = payment["payload"]["permit2Authorization"] if path != ["accepted"] else payment
        for step in path:
            inner = inner[step]
        inner[last] = value
    return {SIGNATURE: UptoPayment.model_validate(payment).header()}


OTHER = "0x" + "77" * 20


@pytest.mark.parametrize(
    "change",
    [
        {"from": OTHER},
        {"spender": OTHER},
        {"nonce": "5"},
        {"deadline": "99999999999"},
        {"deadline": "1"},
        {"permitted__amount": str(MOST - 1)},
        {"permitted__token": OTHER},
        {"witness__to": OTHER},
        {"witness__facilitator": OTHER},
        {"witness__validAfter": "99999999999"},
        {"accepted__amount": "1"},
        {"accepted__payTo": OTHER},
        {"accepted__asset": OTHER},
        {"accepted__network": "eip155:1"},
        {"accepted__amount": "1", "permitted__amount": "1"},
    ],
)
async def test_a_payment_with_anything_changed_buys_nothing(
    store: UptoShop, payer: StockUptoPayer, change: dict[str, str]
) -> None:
    headers = await payer.sign(store.url, {"ask": 1})
    await refused(payer, store, changed(headers, **change))
    assert store.meter.works == 0
    assert not await store.journal.commit(lambda tx: tx.every(r.UptoSale))


# -- what goes wrong -----------------------------------------------------------------------------


class Unreliable(Facilitator):
    """A facilitator whose answers to settlements are lost, or lies."""

    loses_before = False
    loses_after = False
    lie: Settled | None = None

    async def settle(self, payment: Any, requirement: Requirement) -> Settled:
        if self.loses_before:
            raise StoreUnavailable("lost on the way there")
        if self.lie:
            return self.lie
        settled = await super().settle(payment, requirement)
        if self.loses_after:
            raise StoreUnavailable("lost on the way back")
        return settled


async def test_a_balance_that_another_payment_has_used_meanwhile_buys_nothing(
    world: World, tmp_path: Path, settler: str, payer: StockUptoPayer
) -> None:
    """It was there when the payer's balance was read, and is gone before the work begins."""
    together, looked = asyncio.Event(), asyncio.Event()

    class Slow(Facilitator):
        async def verify(self, payment: Any, requirement: Requirement) -> Verified:
            verified = await super().verify(payment, requirement)
            if not looked.is_set():
                looked.set()
                await together.wait()
            return verified

    async with upto_shop(world, tmp_path, Slow(settler), Meter(charge=MOST)) as store:
        short = StockUptoPayer(world, payer.session)
        await short.fill(MOST + MOST // 2)
        headers = [await short.sign(store.url, {"ask": n}) for n in range(2)]
        slow = asyncio.create_task(short.present(store.url, {"ask": 0}, headers[0]))
        await looked.wait()
        other = asyncio.create_task(short.present(store.url, {"ask": 1}, headers[1]))
        await asyncio.wait([other], timeout=1)  # time enough to be done, if nothing holds it
        together.set()
        bought = await asyncio.gather(slow, other)
        assert sorted(one.status for one in bought) == [200, 402]
        assert store.meter.works == 1


@pytest.mark.parametrize("arrives", [False, True])
async def test_a_lost_answer_of_the_facilitator_costs_nobody_anything(
    world: World, tmp_path: Path, settler: str, payer: StockUptoPayer, arrives: bool
) -> None:
    between = Unreliable(settler)
    async with upto_shop(world, tmp_path, between) as store:
        between.loses_before, between.loses_after = not arrives, arrives
        headers = await payer.sign(store.url, {"ask": 1})
        assert (await payer.present(store.url, {"ask": 1}, headers)).status == 503
        figures = await store.journal.commit(
            lambda tx: read_figures(tx, world.network.currency).total
        )
        assert (figures.earned, figures.claimed, figures.at_risk) == (CHARGE, 0, CHARGE)
        assert figures.until > 0
        between.loses_before = between.loses_after = False
        bought = await payer.present(store.url, {"ask": 1}, headers)
        assert (bought.status, store.meter.works) == (200, 1)
        assert await store.earned() == CHARGE
        figures = await store.journal.commit(
            lambda tx: read_figures(tx, world.network.currency).total
        )
        assert (figures.earned, figures.claimed, figures.at_risk) == (CHARGE, CHARGE, 0)


async def test_what_was_charged_is_settled_after_a_crash(
    world: World, tmp_path: Path, settler: str, payer: StockUptoPayer
) -> None:
    between = Unreliable(settler)
    async with upto_shop(world, tmp_path, between) as store:
        between.loses_before = True
        headers = await payer.sign(store.url, {"ask": 1})
        assert (await payer.present(store.url, {"ask": 1}, headers)).status == 503
        again = UptoSeller(
            store.journal,
            Web3Chain(world.network),
            world.network,
            Facilitator(settler),
            payee=store.payee,
        )
        await again.watch()
        assert await store.earned() == CHARGE
        await again.watch()
        bought = await payer.present(store.url, {"ask": 1}, headers)
        assert (bought.status, store.meter.works) == (200, 1)
        assert bought.settled.extensions
        await again._facilitator.close()
        await again._chain.close()
    assert await world.balance(store.payee) == CHARGE


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_facilitator_that_names_another_settlement_is_not_believed(
    world: World, tmp_path: Path, settler: str, payer: StockUptoPayer, cancels: bool
) -> None:
    """Both payments come to the same amount, between the same two; one was settled.

    A payer that `cancels` its nonce makes it look used as well.
    """
    between = Unreliable(settler)
    async with upto_shop(world, tmp_path, between) as store:
        first = await payer.buy(store.url, {"ask": 1})
        between.lie = first.settled.model_copy(update={"extensions": None, "extra": None})
        headers = await payer.sign(store.url, {"ask": 2})
        nonce = UptoPayment.read(headers[SIGNATURE]).payload.permit2_authorization.nonce_number

        async def cancel() -> None:
            words = (nonce >> 8, 1 << (nonce & 255))
            call = abi.encode("invalidateUnorderedNonces(uint256,uint256)", *words)
            await world.send_as(payer.key, PERMIT2, call)

        store.meter.during = cancel if cancels else None
        async with payer.session.post(
            store.url + "/v1/chat/completions", json={"ask": 2}, headers=headers
        ) as said:
            assert said.status == 402
        assert await store.earned() == CHARGE


def signed_anew(
    payer: StockUptoPayer, world: World, headers: dict[str, str], nonce: int
) -> dict[str, str]:
    """Return a payment as its payer signs it with a nonce of its choice."""
    document = UptoPayment.read(changed(headers, nonce=str(nonce))[SIGNATURE]).document()
    permit = UptoPayment.model_validate(document).payload.permit2_authorization.permit()
    signature = KeySigner(payer.key).sign_upto(permit2_domain(world.network.chain_id), permit)
    document["payload"]["signature"] = "0x" + signature.hex()
    return {SIGNATURE: UptoPayment.model_validate(document).header()}


@pytest.mark.parametrize("names", ["the facilitator", "nobody"])
async def test_a_nonce_that_stands_in_other_calls_anyway_pays_for_nothing(
    world: World, tmp_path: Path, settler: str, payer: StockUptoPayer, names: str
) -> None:
    """A payer chooses its nonces: this one is where a signature begins in every settlement."""
    between = Unreliable(settler)
    async with upto_shop(world, tmp_path, between) as store:
        first = await payer.buy(store.url, {"ask": 1})
        if names == "the facilitator":
            between.lie = first.settled.model_copy(update={"extensions": None, "extra": None})

        async def cancel() -> None:
            call = abi.encode("invalidateUnorderedNonces(uint256,uint256)", 320 >> 8, 1 << 64)
            await world.send_as(payer.key, PERMIT2, call)

        store.meter.during = cancel
        headers = signed_anew(payer, world, await payer.sign(store.url, {"ask": 1}), 320)
        assert await refused(payer, store, headers)
        assert (store.meter.works, await store.earned()) == (2, CHARGE)


async def test_a_settlement_that_the_facilitator_forgot_is_found_on_the_chain(
    world: World, tmp_path: Path, settler: str, payer: StockUptoPayer
) -> None:
    between = Unreliable(settler)
    async with upto_shop(world, tmp_path, between) as store:
        between.loses_after = True
        headers = await payer.sign(store.url, {"ask": 1})
        assert (await payer.present(store.url, {"ask": 1}, headers)).status == 503
        between.lie = Settled(
            success=False, transaction="", network=world.network.id, error_reason="invalid_nonce"
        )
        assert (await payer.present(store.url, {"ask": 1}, headers)).status == 200
        assert await store.earned() == CHARGE


async def test_who_takes_the_money_away_gets_no_answer_and_owes(tmp_path: Path) -> None:
    """On a chain of its own, because its clock is moved on."""
    async with AsyncExitStack() as stack:
        chain = stack.enter_context(chain_of("embedded", tmp_path))
        world = await stack.enter_async_context(world_on(chain))
        settler = await stack.enter_async_context(facilitator(world, tmp_path))
        store = await stack.enter_async_context(upto_shop(world, tmp_path, settler))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        rogue = StockUptoPayer(world, session)
        await rogue.fill(MOST)

        async def run_off() -> None:
            call = abi.encode("transfer(address,uint256)", OTHER, MOST)
            await world.send_as(rogue.key, world.network.token, call)

        store.meter.during = run_off
        headers = await rogue.sign(store.url, {"ask": 1})
        await refused(rogue, store, headers)
        assert (store.meter.works, await store.earned()) == (1, 0)
        world.later(700)
        await store.seller.watch()
        (sold,) = await store.journal.commit(lambda tx: tx.every(r.UptoSale))
        assert sold.outcome == "expired"
        store.meter.during = None
        await world.mint(rogue.address, MOST)  # as much again, and the old debt counts
        short = await refused(rogue, store, await rogue.sign(store.url, {"ask": 2}))
        assert short == "permit2_insufficient_balance"
        assert store.meter.works == 1


# -- the facilitator -----------------------------------------------------------------------------


async def test_the_facilitator_settles_a_payment_once_for_one_server_and_amount(
    world: World, store: UptoShop, payer: StockUptoPayer, settler: str
) -> None:
    headers = await payer.sign(store.url, {"ask": 1})
    payment = UptoPayment.read(headers[SIGNATURE])
    most = payment.accepted
    remote = Facilitator(settler)

    def asking(units: int, key: str = "1" * 32) -> Requirement:
        return most.model_copy(update={"amount": str(units)}).with_key(key)

    assert not (await remote.settle(payment, asking(MOST + 1))).success
    both = await asyncio.gather(*(remote.settle(payment, asking(300)) for _ in range(2)))
    assert both[0] == both[1]
    assert both[0].success
    assert await remote.settle(payment, asking(300)) == both[0]
    for other in (asking(301), asking(0), asking(300, "2" * 32)):
        assert not (await remote.settle(payment, other)).success
    assert await store.earned() == 300
    await remote.close()


async def test_the_facilitator_takes_no_payment_that_names_another(
    world: World, store: UptoShop, payer: StockUptoPayer, settler: str
) -> None:
    headers = await payer.sign(store.url, {"ask": 1})
    remote = Facilitator(settler)
    for change in (
        {"witness__facilitator": OTHER},
        {"spender": OTHER},
        {"permitted__token": OTHER},
    ):
        payment = UptoPayment.read(changed(headers, **change)[SIGNATURE])
        assert not (await remote.verify(payment, payment.accepted)).is_valid
        assert not (await remote.settle(payment, payment.accepted)).success
    assert await store.earned() == 0
    await remote.close()


async def test_a_seller_offers_it_only_once_it_knows_who_settles(
    world: World, tmp_path: Path, payer: StockUptoPayer
) -> None:
    class Silent(Facilitator):
        async def upto_address(self, network: str) -> str:
            return ""

    async with (
        upto_shop(world, tmp_path, Silent("http://127.0.0.1:9"), Meter()) as store,
        payer.session.post(store.url + "/v1/chat/completions", json={}) as said,
    ):
        assert Challenge.read(said.headers[REQUIRED]).accepts == []
