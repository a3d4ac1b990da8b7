"""Uploads through (a stub of) Turbo: credits, x402, and what may go wrong after a payment.

The chain is a real one; what counts as paid is what the token says that the payee owns.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.chain_processes import Node
from support.gateway_fixtures import PATIENT, SIGNER, Mind, Weave, minds, weave_at
from support.turbo_stub import TurboStub, turbo_stub
from support.x402_market import World, chain_of, facilitator, world_on

from agentkit.config import MemorySettings
from agentkit.errors import ConfigError, StoreUnavailable, WrongKey
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.memory.arweave.gateways import Gateways
from agentkit.memory.factory import open_path
from agentkit.memory.uploads.outbox import Outbox
from agentkit.memory.uploads.turbo import Turbo, TurboClient
from agentkit.memory.uploads.upload_paths import Direct, UploadPath
from agentkit.money import Money
from agentkit.payments.budget import Budget
from agentkit.payments.chain import Web3Chain
from agentkit.payments.x402.rail import X402Rail
from agentkit.payments.x402.uploads import X402Uploads

PRICE = 1000


@pytest.fixture(scope="module")
def node(tmp_path_factory: Any) -> Iterator[Node]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def world(node: Node) -> AsyncIterator[World]:
    async with world_on(node) as made:
        yield made


@pytest.fixture
async def weave(tmp_path: Path) -> AsyncIterator[Weave]:
    async with weave_at(tmp_path / "weave") as made:
        yield made


@pytest.fixture
async def stub(world: World, weave: Weave, tmp_path: Path) -> AsyncIterator[TurboStub]:
    async with (
        facilitator(world, tmp_path) as settling,
        turbo_stub(world, settling, weave.url) as made,
    ):
        yield made


Wallet = Callable[..., Any]


@asynccontextmanager
async def remembering(
    folder: Path,
    stub: TurboStub,
    *,
    per_upload: int = 10 * PRICE,
    total: int = 0,
    allowance: Allowance | None = None,
) -> AsyncIterator[Mind]:
    """A mind whose wallet pays for its uploads over x402."""
    network = stub.world.network
    chain = Web3Chain(network)
    journal = await Journal.open(folder / "home", SIGNER.address)
    rail = X402Rail(journal, chain, SIGNER, network)
    limit = Money(total, network.currency) if total else None
    payer = X402Uploads(journal, rail, Budget(allowance or Allowance()), network, limit)

    def path(outbox: Outbox, gateways: Gateways) -> UploadPath:
        cap = Money(per_upload, network.currency)
        client = TurboClient(stub.url, **PATIENT)
        return Turbo(outbox, gateways, client, owner=SIGNER.address, payer=payer, per_upload=cap)

    try:
        async with minds(folder / "home", stub.weave, path=path) as mind:
            yield mind
    finally:
        await journal.close()
        await chain.close()


async def books(mind: Mind) -> dict[str, int]:
    """Return what the wallet's books say was spent and is held, without zeros."""
    totals = await mind.journal.commit(lambda tx: tx.every(r.Total))
    return {
        t.scope: t.amount.units
        for t in totals
        if t.amount and t.scope in ("ever", "held", "open:turbo", "provider:turbo")
    }


# -- credits -------------------------------------------------------------------------------------


def credit(stub: TurboStub) -> Callable[[Outbox, Gateways], UploadPath]:
    return lambda outbox, gateways: Turbo(
        outbox, gateways, TurboClient(stub.url, **PATIENT), owner=SIGNER.address
    )


async def test_credits_pay_until_there_are_none(
    tmp_path: Path, stub: TurboStub, weave: Weave
) -> None:
    stub.credits = 1
    async with minds(tmp_path / "home", weave.url, path=credit(stub)) as mind:
        await mind.note()
        await mind.memory.checkpoint()
        assert list(stub.taken) == weave.listed()
        await mind.note()
        with pytest.raises(StoreUnavailable) as refused:
            await mind.memory.checkpoint()
        assert refused.value.hint == 'top up Turbo credits, or set memory.pay = "x402"'
        assert (await mind.said())[1] == (
            f"Arweave upload paused: needs credits, and {stub.url} has not enough for"
            f" {SIGNER.address}; state is safe locally only"
        )
        stub.credits = 1
        await mind.memory.checkpoint()
        weave.mine(18)
        await mind.memory.confirm()
        assert await mind.states() == ["read back"] * 2


# -- x402 ----------------------------------------------------------------------------------------


async def test_an_upload_is_paid_by_the_wallets_own_key(
    tmp_path: Path, stub: TurboStub, weave: Weave
) -> None:
    await stub.world.mint(SIGNER.address, 5 * PRICE)
    async with remembering(tmp_path, stub) as mind:
        for _ in range(2):
            await mind.note()
            await mind.memory.checkpoint()
        assert await stub.world.earned() == 2 * PRICE
        assert await books(mind) == {"ever": 2 * PRICE, "provider:turbo": 2 * PRICE}
        weave.mine(18)
        await mind.memory.confirm()
        assert await mind.states() == ["read back"] * 2
        assert (await mind.memory.checkpoint()).unsealed == 0
        assert stub.asked["paid"] == 2  # what a payment writes down is no reason for the next


async def test_a_503_after_the_payment_is_looked_up_and_never_paid_twice(
    tmp_path: Path, stub: TurboStub
) -> None:
    await stub.world.mint(SIGNER.address, 5 * PRICE)
    stub.fails = 1
    async with remembering(tmp_path, stub) as mind:
        await mind.note()
        for _ in range(4):
            with pytest.raises(StoreUnavailable, match="upload unconfirmed"):
                await mind.memory.checkpoint()
        assert (stub.fails, stub.asked["paid"], len(stub.payments)) == (0, 1, 1)
        assert await stub.world.earned() == PRICE
        name = stub.payments[0][:10]
        said = f"payment {name}… settled, upload unconfirmed"
        assert f"Arweave upload paused: {said}; state is safe locally only" in await mind.said()
        assert f"1 of them: {said}" in await mind.said()
        await mind.note()  # another item is not held up by it
        with pytest.raises(StoreUnavailable, match="upload unconfirmed"):
            await mind.memory.checkpoint()
        assert sorted(await mind.states()) == ["accepted", "sealed"]
        assert await stub.world.earned() == 2 * PRICE
        stub.taken |= {i.item: i.raw for i in await mind.items()}  # by hand, by the service
        await mind.memory.checkpoint()
        assert set(await mind.states()) == {"accepted"}
        assert await stub.world.earned() == 2 * PRICE
        assert await books(mind) == {"ever": 2 * PRICE, "provider:turbo": 2 * PRICE}


@pytest.mark.parametrize("lost", ["fails", "cuts"])
async def test_an_answer_lost_after_the_payment_changes_nothing(
    tmp_path: Path, stub: TurboStub, lost: str
) -> None:
    await stub.world.mint(SIGNER.address, 5 * PRICE)
    setattr(stub, lost, 1)
    stub.keeps = True
    async with remembering(tmp_path, stub) as mind:
        await mind.note()
        await mind.memory.checkpoint()
        assert getattr(stub, lost) == 0
        assert stub.asked["status"] == 1
        assert await mind.states() == ["accepted"]
        assert await stub.world.earned() == PRICE
        assert (await mind.said())[1:] == []


async def test_a_payment_of_an_earlier_process_is_the_one_that_is_presented(
    tmp_path: Path, stub: TurboStub
) -> None:
    """Killed after signing, or refused: the same authorization, which the token takes once."""
    await stub.world.mint(SIGNER.address, 5 * PRICE)
    stub.refuses = 2
    async with remembering(tmp_path, stub) as mind:  # which tries once more as it closes
        await mind.note()
        with pytest.raises(StoreUnavailable, match="does not take payment 0x"):
            await mind.memory.checkpoint()
        assert await books(mind) == {"held": PRICE, "open:turbo": PRICE}
    assert (stub.refuses, stub.payments) == (0, [])
    async with remembering(tmp_path, stub) as again:
        (signed,) = await again.journal.commit(lambda tx: tx.every(r.Authorization))
        await again.memory.checkpoint()
        assert stub.payments == [f"0x{signed.nonce}"]
        assert await books(again) == {"ever": PRICE, "provider:turbo": PRICE}
    assert await stub.world.earned() == PRICE


async def test_a_payment_that_expired_unused_gives_way_to_another(
    tmp_path: Path, stub: TurboStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stub.world.mint(SIGNER.address, 5 * PRICE)
    stub.refuses = 1
    async with remembering(tmp_path, stub) as mind:
        await mind.note()
        with monkeypatch.context() as soon:
            soon.setattr("agentkit.payments.x402.rail.AUTHORIZATION_LASTS", -3600)
            with pytest.raises(StoreUnavailable):
                await mind.memory.checkpoint()
        (first,) = await mind.journal.commit(lambda tx: tx.every(r.Authorization))
        assert stub.refuses == 0
        stub.price = 2 * PRICE  # on other terms
        await mind.memory.checkpoint()
        rows = await mind.journal.commit(lambda tx: tx.every(r.Authorization))
        assert {row.outcome for row in rows if row.nonce == first.nonce} == {"expired"}
        assert len(rows) == 2
        assert await books(mind) == {"ever": 2 * PRICE, "provider:turbo": 2 * PRICE}


LIMITS = {
    "per_upload": ({"per_upload": PRICE - 1}, "above memory.per_upload"),
    "total": ({"total": PRICE - 1}, "memory.total"),
    "allowance": ({"allowance": "per_day"}, "per_day"),
    "providers": ({"allowance": "providers"}, "the allowance does not list provider 'turbo'"),
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_no_upload_is_paid_above_a_limit(tmp_path: Path, stub: TurboStub, limit: str) -> None:
    more, said = LIMITS[limit]
    small = Money(PRICE - 1, stub.world.network.currency)
    known = {
        "per_day": Allowance(per_day=small),
        "providers": Allowance(providers=("native",)),
    }
    if "allowance" in more:
        more = {"allowance": known[more["allowance"]]}
    await stub.world.mint(SIGNER.address, 5 * PRICE)
    async with remembering(tmp_path, stub, **more) as mind:
        await mind.note()
        with pytest.raises(StoreUnavailable, match=said):
            await mind.memory.checkpoint()
        assert said in (await mind.said())[1]
        assert stub.asked == {"/v1/tx": 1, "terms": 1}
        assert await books(mind) == {}
        assert await mind.memory.latest("t")


async def test_a_wallet_without_usdc_says_so(tmp_path: Path, stub: TurboStub) -> None:
    have = await stub.world.balance(SIGNER.address)
    stub.price = have + PRICE
    async with remembering(tmp_path, stub, per_upload=have + PRICE) as mind:
        await mind.note()
        with pytest.raises(StoreUnavailable, match="are needed, and the wallet holds"):
            await mind.memory.checkpoint()
        assert await books(mind) == {}


# -- which path ----------------------------------------------------------------------------------


async def path_of(folder: Path, *, real: bool, **settings: Any) -> UploadPath:
    journal = await Journal.open(folder / "home", SIGNER.address)
    try:
        known = MemorySettings.model_validate(settings)
        gateways = Gateways(["http://127.0.0.1:1"])
        path = await open_path(known, journal, gateways, real=real, owner="0x")
        await path.close()
        return path
    finally:
        await journal.close()


async def test_the_settings_choose_the_path(tmp_path: Path) -> None:
    assert isinstance(await path_of(tmp_path, real=False), Direct)
    assert isinstance(await path_of(tmp_path, real=True), Turbo)
    assert isinstance(await path_of(tmp_path, real=True, upload="embedded"), Direct)


@pytest.mark.parametrize(
    ("settings", "error", "key"),
    [
        ({"upload": "l1", "total": "1 AR"}, ConfigError, "set memory.jwk"),
        ({"upload": "l1", "jwk": "w.json"}, ConfigError, 'set memory.total = "0.05 AR"'),
        ({"upload": "l1", "jwk": "w.json", "total": "1 USDC"}, ConfigError, "memory.total in AR"),
        ({"upload": "l1", "jwk": "none.json", "total": "1 AR"}, WrongKey, "memory.jwk"),
        ({"upload": "turbo", "pay": "x402"}, ConfigError, "set memory.per_upload"),
        ({"pay": "x402", "per_upload": "1 AR"}, ConfigError, "memory.per_upload in USDC"),
    ],
)
async def test_a_path_without_its_limits_is_refused(
    tmp_path: Path, settings: dict[str, Any], error: type[ConfigError], key: str
) -> None:
    with pytest.raises(error) as refused:
        await path_of(tmp_path, real=True, **settings)
    assert key in refused.value.hint
