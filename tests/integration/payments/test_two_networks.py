"""One agent with money on two chains: each offer is paid where its provider wants it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from support.chain_processes import Node
from support.two_networks import (
    HOME,
    OTHER,
    Corner,
    Wallet,
    corner_on,
    described,
    two_chains,
    wallet_with,
)
from support.x402_market import PRICE

from agentkit.errors import InsufficientFunds, NoOffer, OverBudget, RunPaused
from agentkit.graph.builder import JobGraph
from agentkit.journal import records as r
from agentkit.market.allowance import Allowance
from agentkit.money import Money
from agentkit.payments.x402.rail import AUTHORIZATION_LASTS
from agentkit.providers import web

pytestmark = pytest.mark.anvil

SCHEMES = pytest.mark.parametrize("scheme", ["exact", "lanes"])
OWNED = 100 * PRICE
CHARGED = 600


@pytest.fixture
def alone() -> Iterator[dict[int, Node]]:
    """Chains whose clocks a test may move."""
    with two_chains() as running:
        yield running


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[int, Node]]:
    with two_chains() as running:
        yield running


@asynccontextmanager
async def shops_on(nodes: dict[int, Node], folder: Path) -> AsyncIterator[dict[int, Corner]]:
    """Shops on each chain; over channels one payee sells on both."""
    key = secrets.token_bytes(32)
    async with AsyncExitStack() as stack:
        yield {
            chain: await stack.enter_async_context(corner_on(node, chain, folder / str(chain), key))
            for chain, node in nodes.items()
        }


@pytest.fixture(autouse=True)
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shops are on loopback, and are paid for all the same."""

    async def here_too(host: str) -> bool:
        return True

    monkeypatch.setattr(web, "is_public", here_too)


@pytest.fixture
async def corners(nodes: dict[int, Node], tmp_path: Path) -> AsyncIterator[dict[int, Corner]]:
    async with shops_on(nodes, tmp_path) as shops:
        yield shops


@pytest.fixture
async def wallet(corners: dict[int, Corner], tmp_path: Path) -> Wallet:
    return await wallet_with(corners, tmp_path)


def buying(*urls: str) -> JobGraph:
    graph = JobGraph("shopping")
    for number, url in enumerate(urls):
        graph.request(f"buy{number}", url=url, method="POST", body={"number": number})
    return graph


@SCHEMES
async def test_each_offer_is_paid_on_the_chain_that_its_provider_names(
    corners: dict[int, Corner], wallet: Wallet, scheme: str
) -> None:
    urls = [corner.url(scheme) for corner in corners.values()]
    async with wallet.agent() as agent:
        result = await agent.run(buying(*urls, *urls), budget="0.004 USDC")
        rails = sorted(receipt.attempt.rail for receipt in result.receipts)
        assert result.paid == Money(4 * PRICE, agent.network.currency)
    base = "x402" if scheme == "exact" else "batch-settlement"
    assert rails == [base, base, f"{base}@eip155:1", f"{base}@eip155:1"]
    for corner in corners.values():
        assert (await corner.earned(), corner.works) == (2 * PRICE, 2)


async def test_without_the_users_word_another_currency_is_refused_and_the_setting_named(
    corners: dict[int, Corner], wallet: Wallet
) -> None:
    async with wallet.agent(usd=None) as agent:
        with pytest.raises(NoOffer, match='usd = "usdc"') as refused:
            await agent.fetch(corners[OTHER].url("exact"), budget="1 USDC", method="POST")
        assert "it takes USDC on other, and a budget is in USDC on home" in str(refused.value)
        paid = await agent.fetch(corners[HOME].url("exact"), budget="1 USDC", method="POST")
        assert paid.paid == Money(PRICE, agent.network.currency)
    assert corners[OTHER].works == 0


@SCHEMES
async def test_one_budget_holds_over_both(
    corners: dict[int, Corner], wallet: Wallet, scheme: str
) -> None:
    urls = [corner.url(scheme) for corner in corners.values()]
    allowance = Allowance(total=Money.parse("0.003 USDC"))
    async with wallet.agent(allowance=allowance) as agent:
        with pytest.raises(OverBudget):
            await agent.run(buying(*urls), budget="0.001 USDC")
        await agent.run(buying(*urls), budget="0.002 USDC")
        await agent.fetch(urls[1], budget="0.001 USDC", method="POST")
        for url in urls:
            with pytest.raises(OverBudget, match="total"):
                await agent.fetch(url, budget="0.001 USDC", method="POST")
    assert sum([await corner.earned() for corner in corners.values()]) == 3 * PRICE


async def test_one_payee_on_two_chains_has_two_accounts_and_one_limit(
    corners: dict[int, Corner], wallet: Wallet
) -> None:
    (payee,) = {corner.lanes.signer.address for corner in corners.values()}
    for corner in corners.values():
        corner.lanes.work.charge = CHARGED
    limited = Allowance(exposure=Money.parse("0.0013 USDC"))
    async with wallet.agent(allowance=limited) as agent:
        await agent.fetch(corners[OTHER].url("lanes"), budget="1 USDC", method="POST")
        with pytest.raises(RunPaused, match="exposure"):
            await agent.fetch(corners[HOME].url("lanes"), budget="1 USDC", method="POST")
    async with wallet.agent() as agent:
        await agent.fetch(corners[HOME].url("lanes"), budget="1 USDC", method="POST")
        accounts = await agent._journal.commit(lambda tx: tx.every(r.Account))
    assert {account.key: account.spent.units for account in accounts} == {
        f"batch-settlement|{payee}": CHARGED,
        f"batch-settlement@eip155:1|{payee}": CHARGED,
    }


async def test_what_is_left_comes_back_on_each_chain(
    corners: dict[int, Corner], wallet: Wallet
) -> None:
    async with wallet.agent() as agent:
        for corner in corners.values():
            corner.lanes.work.charge = CHARGED
            await agent.fetch(corner.url("lanes"), budget="1 USDC", method="POST")
        placed = (await agent.balances()).placed
        assert sorted(label.endswith(" on other") for label in placed) == [False, True]
        assert set((await agent.close_channels()).values()) == {"closed"}
        assert not (await agent.balances()).placed
    for corner in corners.values():
        assert await corner.world.balance(wallet.signer.address) == OWNED - CHARGED


async def test_the_wallet_shows_every_network(corners: dict[int, Corner], wallet: Wallet) -> None:
    await corners[OTHER].world.mint(wallet.signer.address, 5)
    async with wallet.agent() as agent:
        found = await agent.balances()
        assert (found.network, found.currency.units) == ("home", OWNED)
        (other,) = found.beside
        assert other.currency is not None
        assert (other.network, other.currency.units) == ("other", OWNED + 5)
        await agent.fetch(corners[OTHER].url("lanes"), budget="1 USDC", method="POST")
    wallet.networks["other"]["rpc"] = ["http://127.0.0.1:1"]
    async with wallet.agent() as agent:
        (other,) = (await agent.balances()).beside
        assert str(other).startswith("not known: the chain at http://127.0.0.1:1 does not answer")
        paid = await agent.fetch(corners[HOME].url("exact"), budget="1 USDC", method="POST")
        assert paid.paid


async def test_money_on_one_network_pays_for_nothing_on_another(
    corners: dict[int, Corner], tmp_path: Path
) -> None:
    poor = await wallet_with({HOME: corners[HOME]}, tmp_path / "poor")
    poor.networks["other"] = described(corners[OTHER])
    async with poor.agent() as agent:
        plan = await agent.plan(buying(corners[OTHER].url("exact")), budget="1 USDC")
        with pytest.raises(InsufficientFunds, match=r"0\.001 USDC on other, .* has 0\.00 USDC"):
            await agent.start(plan)
        home = await agent.plan(buying(corners[HOME].url("exact")), budget="1 USDC")
        await (await agent.start(home)).result()


async def test_what_became_of_a_payment_is_read_on_its_own_chain(
    alone: dict[int, Node], tmp_path: Path
) -> None:
    """The home chain never saw it: there it would have expired, and the money be counted back."""
    async with shops_on(alone, tmp_path) as corners:
        wallet = await wallet_with(corners, tmp_path)
        async with wallet.agent() as agent:
            await agent.fetch(corners[OTHER].url("exact"), budget="1 USDC", method="POST")
            corners[HOME].world.later(2 * AUTHORIZATION_LASTS)
            assert (await agent.balances()).spent == Money(PRICE, agent.network.currency)
            (row,) = await agent._journal.commit(lambda tx: tx.every(r.Authorization))
    assert (row.outcome, row.amount.asset.network) == ("used", "eip155:1")
