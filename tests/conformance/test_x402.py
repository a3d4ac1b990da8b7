"""x402 on real chains: the suites of rail and provider, and the x402 SDK as the oracle."""

import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.chains import Node
from paying import MODEL, PRICE, SHOP, Payer, Shop, World, chain_of, facilitator, payer, shop, world_on

from agentkit.testing import Desk, ProviderConformance, RailConformance


@pytest.fixture(scope="module", params=["embedded", pytest.param("anvil", marks=pytest.mark.anvil)])
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


async def test_what_was_bought_is_paid_once_on_the_chain(
    world: World, store: Shop, wallet: Payer
) -> None:
    task, offer, attempt, payment = await wallet.sign()
    assert offer.price == offer.at_most == attempt.at_most
    assert (offer.at_most.units, offer.payee) == (PRICE, SHOP.address)
    for _ in range(3):
        await wallet.provider.submit(task, offer, attempt, payment)
        result = await wallet.provider.result(attempt)
        assert result.outputs[0].text == "answer 1"
    assert store.counter.works == 1
    assert await world.balance(SHOP.address) == PRICE
    assert await wallet.rail.lookup(attempt) == "paid"
