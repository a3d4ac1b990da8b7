"""The exactly-once sender against the embedded chain, over RPC, with faults on the way there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from aiohttp.test_utils import TestServer
from support.chain_processes import KEYS, WEALTH
from support.deployed_chain import open_deployed
from support.timing import limit, until

from agentkit.embedded.chain.rpc import RpcFront, rpc_app
from agentkit.embedded.chain.vm import CHAIN_ID
from agentkit.errors import (
    InsufficientFunds,
    IntentMismatch,
    OverBudget,
    SettlementFailed,
    StoreUnavailable,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import UnsignedTransaction
from agentkit.keys.signer import KeySigner
from agentkit.market.chain import ChainReceipt, Network
from agentkit.money import Asset, Money
from agentkit.payments import abi, sender
from agentkit.payments.balance import token_balance
from agentkit.payments.chain import Web3Chain
from agentkit.payments.sender import Sender

DEPLOYER, PAYER, SHOP, OTHER, POOR = map(KeySigner, KEYS)
MINTED = 1000
TOKEN_GAS = 100_000
"""More than a transfer needs."""

Lost = Literal["before", "after"]


class Died(Exception):
    """The process ends here, as far as the sender can tell."""


def transfer(units: int, to: KeySigner = SHOP) -> bytes:
    return abi.encode("transfer(address,uint256)", to.address, units)


class Line(Web3Chain):
    """The way to the chain as one process has it, with faults on it.

    `losing`: the process dies at the next sends, `before` or `after` the bytes got there.
    `cutting`: so many answers to the next sends are lost on the line, with what was sent or after.
    `estimated`: the gas that is answered to every question, as by a node that lags behind.
    `heads`: how often it was asked how deep the chain is.
    """

    def __init__(self, network: Network, home: Path) -> None:
        super().__init__(network)
        self._home = home
        self.sent: list[str] = []
        self.losing: list[Lost] = []
        self.cutting: list[Lost] = []
        self.estimated = 0
        self.heads = 0

    async def head(self) -> int:
        self.heads += 1
        return await super().head()

    async def estimate(self, sender: str, to: str, data: bytes) -> int:
        return self.estimated or await super().estimate(sender, to, data)

    async def send(self, raw: bytes) -> None:
        assert raw.hex() in [row.raw for row in await self.written()], "sent before it was written"
        self.sent.append(raw.hex())
        lost = self.losing.pop(0) if self.losing else ""
        cut = self.cutting.pop(0) if self.cutting else ""
        if lost == "before":
            raise Died
        if cut == "before":
            raise StoreUnavailable("the test cut the line before the bytes were there")
        await super().send(raw)
        if lost == "after":
            raise Died
        if cut == "after":
            raise StoreUnavailable("the test cut the line before the answer was there")

    async def written(self) -> list[r.EvmTransaction]:
        """What another process sees in the state file."""
        journal = await Journal.open(self._home, PAYER.address)
        try:
            return await journal.commit(lambda tx: tx.every(r.EvmTransaction))
        finally:
            await journal.close()


@dataclass
class Process:
    """A process of the wallet: its sender, its journal and its line to the chain."""

    sender: Sender
    journal: Journal
    line: Line
    token: str

    async def pay(self, intent: str, units: int, to: KeySigner = SHOP) -> bool:
        receipt = await self.sender.send(intent, self.token, transfer(units, to))
        return receipt.succeeded

    async def loses(self, intent: str, units: int, lost: Lost = "before") -> r.EvmTransaction:
        """Die while an intent is sent, and return what is written of it."""
        self.line.losing.append(lost)
        with pytest.raises(Died):
            await self.pay(intent, units)
        assert not self.line.losing
        return await self.row(intent)

    async def row(self, intent: str) -> r.EvmTransaction:
        found = await self.journal.commit(lambda tx: tx.get(r.EvmTransaction, intent))
        assert found, f"nothing is written of {intent}"
        return found

    async def gas(self) -> Money | None:
        rows = await self.journal.commit(lambda tx: tx.every(r.Total, "gas|"))
        return rows[0].amount if rows else None


@dataclass
class World:
    """A chain behind its RPC, a wallet with coins and tokens, and the folder of its state."""

    network: Network
    home: Path
    eyes: Web3Chain

    @asynccontextmanager
    async def process(
        self, gas: Money | None = None, who: KeySigner = PAYER
    ) -> AsyncIterator[Process]:
        home = self.home / who.address
        journal = await Journal.open(home, who.address)
        line = Line(self.network, home)
        try:
            sender = Sender(journal, line, who, self.network, gas)
            yield Process(sender, journal, line, self.network.token)
        finally:
            await line.close()
            await journal.close()

    async def paid(self, to: KeySigner = SHOP) -> int:
        return await token_balance(self.eyes, self.network, to.address)

    async def used(self) -> int:
        """How many transactions of the wallet the chain has."""
        return await self.eyes.nonce(PAYER.address)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    rich = (DEPLOYER, PAYER, OTHER)
    chain, at = open_deployed(tmp_path / "chain.db", rich=rich, minted=MINTED)
    async with TestServer(rpc_app(RpcFront(chain))) as server:
        network = Network(
            name="test",
            chain_id=CHAIN_ID,
            rpc=str(server.make_url("/")),
            currency=Asset.named("USDC").bind(f"eip155:{CHAIN_ID}", f"erc20:{at.token}"),
            coin=Asset.named("ETH").bind(f"eip155:{CHAIN_ID}", "slip44:60"),
            token=at.token,
            token_name="USD Coin",
            token_version="1",
            channels=at.channels,
            test=True,
        )
        eyes = Web3Chain(network)
        yield World(network, tmp_path / "home", eyes)
        await eyes.close()
    chain.close()


# -- once ----------------------------------------------------------------------------------------


async def test_the_same_intent_is_one_transaction(world: World) -> None:
    async with world.process() as one:
        assert await one.pay("pay:a", 5)
        assert await one.pay("pay:a", 5)
        assert await asyncio.gather(*(one.pay("pay:b", 7) for _ in range(5))) == [True] * 5
    async with world.process() as later:
        assert await later.pay("pay:a", 5)
        assert not later.line.sent
    assert await world.paid() == 5 + 7
    assert await world.used() == 2


async def test_transactions_on_another_network_are_left_to_that_networks_sender(
    world: World,
) -> None:
    coin = Asset.named("ETH").bind("eip155:10", "slip44:60")
    elsewhere = e.TxSigned(
        intent="pay:a",
        call="00",
        nonce=0,
        transaction="0x" + "ab" * 32,
        raw="01",
        cost=Money(10**18, coin),
    )
    async with world.process(gas=Money.parse("1 ETH")) as one:
        await one.journal.commit(lambda tx: tx.append(e.WALLET, elsewhere))
        await one.sender.recover()
        assert not one.line.sent
        assert await one.pay("pay:b", 5), "what lies there counts against no gas limit here"
        with pytest.raises(IntentMismatch, match="eip155:10"):
            await one.pay("pay:a", 5)
    assert await world.used() == 1


@pytest.mark.parametrize("again", ["send", "recover"])
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_what_was_signed_before_a_crash_lands_once(
    world: World, lost: Lost, again: str
) -> None:
    async with world.process() as first:
        row = await first.loses("pay:a", 5, lost)
        assert first.line.sent == [row.raw]
        assert not row.final
    assert await world.paid() == (5 if lost == "after" else 0)
    async with world.process() as second:
        await (second.pay("pay:a", 5) if again == "send" else second.sender.recover())
        assert second.line.sent == ([row.raw] if lost == "before" else [])
        assert (await second.row("pay:a")).final
    assert await world.paid() == 5
    assert await world.used() == 1


async def test_a_line_that_breaks_again_and_again_changes_nothing(world: World) -> None:
    raws = set()
    for lost in ("before", "before", "after"):
        async with world.process() as process:
            raws.add((await process.loses("pay:a", 5, lost)).raw)
    async with world.process() as last:
        assert await last.pay("pay:a", 5)
    assert len(raws) == 1
    assert (await world.paid(), await world.used()) == (5, 1)


@pytest.mark.parametrize("landed", [True, False])
async def test_the_same_intent_with_other_terms_is_refused(world: World, landed: bool) -> None:
    async with world.process() as process:
        await (process.pay("pay:a", 5) if landed else process.loses("pay:a", 5))
        before = len(process.line.sent)
        for units, to in ((6, SHOP), (5, OTHER)):
            with pytest.raises(IntentMismatch):
                await process.pay("pay:a", units, to)
        with pytest.raises(IntentMismatch):
            await process.sender.send("pay:a", world.network.channels, transfer(5))
        assert len(process.line.sent) == before


async def test_concurrent_intents_have_nonces_of_their_own(world: World) -> None:
    async with world.process() as one, world.process() as two:
        both = [one, two] * 4
        payments = [process.pay(f"pay:{n}", 1) for n, process in enumerate(both)]
        assert all(await asyncio.gather(*payments))
        rows = await one.line.written()
    assert sorted(row.nonce for row in rows) == list(range(8))
    assert (await world.paid(), await world.used()) == (8, 8)


async def test_what_a_payment_means_is_written_once(world: World) -> None:
    """Followed by two at a time and asked for again, a top-up counts once in the books."""
    meant: list[str] = []
    async with world.process() as process:
        process.sender.on_final["pay"] = lambda tx, intent, receipt: meant.append(intent)
        await process.loses("pay:a", 5, "after")
        assert meant == []
        await asyncio.gather(*(process.pay("pay:a", 5) for _ in range(3)))
        await process.sender.recover()
    assert meant == ["pay:a"]


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_lost_answers_are_neither_failures_nor_a_second_payment(
    world: World, cut: Lost
) -> None:
    async with world.process() as process:
        process.line.cutting = [cut] * 3
        assert await process.pay("pay:a", 5)
        assert not process.line.cutting or cut == "after"  # the chain had it all along
        assert len(set(process.line.sent)) == 1
    assert (await world.paid(), await world.used()) == (5, 1)


# -- refused, reverted ---------------------------------------------------------------------------


async def test_what_reverts_is_recorded_and_not_tried_again(world: World) -> None:
    meant: list[str] = []
    async with world.process() as process:
        process.sender.on_final["pay"] = lambda tx, intent, receipt: meant.append(intent)
        process.line.estimated = TOKEN_GAS
        for _ in range(2):
            with pytest.raises(SettlementFailed, match="reverted"):
                await process.pay("pay:a", MINTED + 1)
        row = await process.row("pay:a")
        assert len(process.line.sent) == 1
        assert row.final and not row.succeeded
        assert await process.gas() == row.cost
        assert row.cost.units == WEALTH - await world.eyes.balance(PAYER.address) > 0
    assert meant == []
    assert (await world.paid(), await world.used()) == (0, 1)


async def test_what_would_revert_is_not_signed(world: World) -> None:
    async with world.process() as process:
        with pytest.raises(SettlementFailed):
            await process.pay("pay:a", MINTED + 1)
        assert not await process.line.written()
    assert await world.used() == 0


async def test_recovery_goes_on_after_one_that_reverts(world: World) -> None:
    async with world.process() as first:
        first.line.estimated = TOKEN_GAS
        await first.loses("pay:a", MINTED + 1)
        await first.loses("pay:b", 5)
    async with world.process() as second:
        with suppress(SettlementFailed):
            await second.sender.recover()
        assert (await second.row("pay:a")).final
        assert (await second.row("pay:b")).final
    assert await world.paid() == 5


async def test_a_success_that_moved_nothing_ends_its_intent(world: World) -> None:
    """As the prepaid rail refuses to book a top-up without the token's own log."""

    def refuse(tx: object, intent: str, receipt: ChainReceipt) -> None:
        raise SettlementFailed("it transferred nothing")

    async with world.process() as process:
        process.sender.on_final["pay"] = refuse
        with pytest.raises(SettlementFailed, match="transferred nothing"):
            await process.pay("pay:a", 5)
        assert (await process.row("pay:a")).final
        assert await process.gas()
        await process.sender.recover()


async def test_a_nonce_that_comes_too_early_waits_for_the_one_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node keeps it, and executes it once the one before it has come."""
    monkeypatch.setattr(sender, "PATIENCE", 0.2)
    async with world.process() as first:
        early = await first.loses("pay:a", 5)
        with pytest.raises(StoreUnavailable, match="not mined yet") as waiting:
            await first.pay("pay:b", 7)
        assert "same command again" in waiting.value.hint
        late = await first.row("pay:b")
        assert (early.nonce, late.nonce, late.final) == (0, 1, False)
    assert await world.paid() == 0
    async with world.process() as second:
        await second.sender.recover()
        assert second.line.sent == [early.raw]
    assert (await world.paid(), await world.used()) == (5 + 7, 2)


async def test_a_node_that_keeps_no_early_nonce_is_sent_it_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "REFUSED_PATIENCE", 0.2)
    refused = 0

    async def refuse(raw: bytes) -> None:
        nonlocal refused
        refused += 1
        raise SettlementFailed("the chain refuses: nonce too high")

    async with world.process() as first:
        early = await first.loses("pay:a", 5)
        monkeypatch.setattr(first.line, "send", refuse)
        with pytest.raises(StoreUnavailable, match=r"not mined yet \(.*nonce too high"):
            await first.pay("pay:b", 7)
        late = await first.row("pay:b")
        assert (early.nonce, late.nonce, late.final) == (0, 1, False)
    assert (refused > 0, await world.paid()) == (True, 0)
    async with world.process() as second:
        await second.sender.recover()
        assert second.line.sent == [early.raw, late.raw]
    assert (await world.paid(), await world.used()) == (5 + 7, 2)


async def test_what_a_node_took_is_waited_for_whatever_it_says_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that has the bytes refuses them in words that nobody knows, and mines them later."""
    monkeypatch.setattr(sender, "REFUSED_PATIENCE", 0.0)
    async with world.process() as process:
        real, refusals = process.line.send, 0

        async def send(raw: bytes) -> None:
            nonlocal refusals
            if not refusals and not process.line.sent:
                process.line.sent.append(raw.hex())  # taken into its pool, and not mined
                return
            refusals += 1
            if refusals < 3:
                raise SettlementFailed("the chain refuses: Zwillingstransaktion")
            await real(raw)

        monkeypatch.setattr(process.line, "send", send)
        assert await process.pay("pay:a", 5)
        assert refusals == 3
    assert (await world.paid(), await world.used()) == (5, 1)


async def test_a_nonce_that_somebody_else_used_is_given_up_for_the_next(world: World) -> None:
    """The wallet's key is in another program too: ours can never be mined, and must not block."""
    async with world.process() as process:
        row = await process.loses("pay:a", 5)
        await world.eyes.send(foreign(row.nonce))
        assert await world.used() == 1
        assert await process.pay("pay:a", 5)
        ended = await process.row("pay:a")
        assert (ended.nonce, ended.final, ended.succeeded) == (row.nonce + 1, True, True)
        assert ended.transaction not in row.transactions
        await process.pay("pay:b", 7)
    assert await world.paid() == 5 + 7
    assert await world.used() == 3


async def test_a_nonce_is_not_given_up_for_what_one_node_says_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node behind a balancer may know the nonce and not yet the receipt."""
    async with world.process() as process:
        row = await process.loses("pay:a", 5, "after")
        looks = 0

        async def receipt(transaction: str) -> ChainReceipt | None:
            nonlocal looks
            looks += 1
            return await Web3Chain.receipt(process.line, transaction) if looks > 3 else None

        monkeypatch.setattr(process.line, "receipt", receipt)
        assert await process.pay("pay:a", 5)
        assert looks > 3
        assert (await process.row("pay:a")).transactions == row.transactions
    assert (await world.paid(), await world.used()) == (5, 1)


def foreign(nonce: int) -> bytes:
    """A transaction of the wallet that its journal knows nothing of."""
    fields = {"to": OTHER.address, "data": b"", "gas": 21_000, "value": 1}
    fees = {"max_fee": 10**11, "max_tip": 10**9}
    return PAYER.sign_tx(UnsignedTransaction(chain_id=CHAIN_ID, nonce=nonce, **fields, **fees))[1]  # type: ignore[arg-type]


async def test_a_nonce_that_somebody_else_used_is_not_taken(world: World) -> None:
    async with world.process() as process:
        await process.pay("pay:a", 5)
        await world.eyes.send(foreign(1))
        await process.pay("pay:b", 7)
        assert (await process.row("pay:b")).nonce == 2
    assert await world.paid() == 5 + 7


# -- gas -----------------------------------------------------------------------------------------


async def test_gas_beyond_the_allowance_is_not_signed(world: World) -> None:
    async with world.process(gas=Money.parse("0.000000001 ETH")) as process:
        with pytest.raises(OverBudget) as over:
            await process.pay("pay:a", 5)
        assert over.value.limit == "gas"
        assert not await process.line.written()
        assert not process.line.sent
    assert (await world.paid(), await world.used()) == (0, 0)


async def test_gas_that_waits_counts_at_its_most_and_then_as_spent(world: World) -> None:
    async with world.process() as first:
        most = (await first.loses("pay:a", 5)).cost
    async with world.process(gas=most) as full:
        with pytest.raises(OverBudget):
            await full.pay("pay:b", 7)
        await full.sender.recover()
        spent = await full.gas()
        assert spent and spent < most
    async with world.process(gas=spent) as used_up:
        with pytest.raises(OverBudget):
            await used_up.pay("pay:b", 7)
        assert not used_up.line.sent
    async with world.process(gas=spent + most) as enough:
        assert await enough.pay("pay:b", 7)
    assert (await world.paid(), await world.used()) == (5 + 7, 2)


async def test_without_coins_nothing_is_signed(world: World) -> None:
    async with world.process(who=POOR) as poor:
        poor.line.estimated = TOKEN_GAS
        with pytest.raises(InsufficientFunds, match="gas"):
            await poor.pay("pay:a", 5)
        assert not await poor.journal.commit(lambda tx: tx.every(r.EvmTransaction))
        assert not poor.line.sent


# -- depth ---------------------------------------------------------------------------------------


async def test_a_receipt_counts_when_it_is_deep_enough(world: World) -> None:
    """A payment in the newest block may be undone: until it is deep, nothing is booked."""
    world.network = world.network.model_copy(update={"finality": 3})
    async with world.process() as process:
        paying = asyncio.create_task(process.pay("pay:a", 5))
        for nonce in range(2):
            asked = process.line.heads
            await until(lambda: process.line.heads > asked + 1)  # it has looked, and looks again
            assert not (await process.row("pay:a")).final
            assert not paying.done()
            await mine(world, nonce)
        assert await asyncio.wait_for(paying, limit(10))
        assert (await process.row("pay:a")).final
        assert len(process.line.sent) == 1


async def mine(world: World, nonce: int) -> None:
    """Add a block, by a transaction of somebody else's."""
    fields = {"to": SHOP.address, "data": b"", "gas": 21_000, "max_fee": 10**11, "max_tip": 1}
    raw = OTHER.sign_tx(UnsignedTransaction(chain_id=CHAIN_ID, nonce=nonce, **fields))[1]  # type: ignore[arg-type]
    await world.eyes.send(raw)
