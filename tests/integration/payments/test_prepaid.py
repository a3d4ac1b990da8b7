"""Credit that is paid for in advance, on a real chain: each top-up lands once, whoever lies."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.chain_clock import ARBITER, MINTED, PAYER, SHOP, Clock, clocked

from agentkit.errors import (
    InsufficientFunds,
    OverBudget,
    ProtocolBroken,
    SettlementFailed,
    StateError,
)
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import UnsignedTransaction as Call
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Message, purchase_id
from agentkit.market.chain import ChainReceipt, Network
from agentkit.market.offer import Offer
from agentkit.market.seams import Wanted
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.balance import token_balance
from agentkit.payments.budget import Budget, Exposure
from agentkit.payments.chain import Web3Chain
from agentkit.payments.prepaid import PrepaidRail
from agentkit.payments.sender import Sender

PRICE = 1000


class Line(Web3Chain):
    """A line on which a test has its own word about receipts, and something done before sends."""

    before: Callable[[bytes], Awaitable[None]] | None = None
    lie: Callable[[ChainReceipt], ChainReceipt] | None = None
    lies = 0

    async def send(self, raw: bytes) -> None:
        if self.before:
            await self.before(raw)
        await super().send(raw)

    async def receipt(self, transaction: str) -> ChainReceipt | None:
        found = await super().receipt(transaction)
        if found and self.lie:
            self.lies += 1
            return self.lie(found)
        return found


@dataclass
class Bench:
    """A wallet and the rail that tops up its credit with a shop."""

    network: Network
    journal: Journal
    line: Line
    budget: Budget
    rail: PrepaidRail

    def money(self, units: int) -> Money:
        return Money(units, self.network.currency)

    def offer(self) -> Offer:
        return Offer(
            provider="far",
            node="n",
            on="x",
            price=self.money(PRICE),
            at_most=self.money(PRICE),
            eta=1,
            expires=time.time() + 600,
            rail="prepaid",
            pays="with_request",
            payee=SHOP.address,
            rates={},
        )

    def another(self, exposure: Exposure | None = None) -> PrepaidRail:
        """Return the rail of another process of this wallet."""
        sender = Sender(self.journal, self.line, PAYER, self.network)
        return PrepaidRail(self.journal, self.line, PAYER, self.network, sender, exposure=exposure)

    async def hold(self, units: int, run: str = "r1") -> None:
        await self.journal.commit(lambda tx: self.budget.hold(tx, run, self.money(units), None))

    async def fund(
        self, units: int = PRICE, rail: PrepaidRail | None = None, run: str = "r1"
    ) -> list[Message]:
        attempt = Attempt.at(
            purchase_id(run, "n"),
            0,
            self.offer(),
            run=run,
            item=None,
            task="cd" * 32,
            at_most=self.money(units),
        )
        wanted = Wanted(attempt, lambda tx: self.budget.reserve(tx, attempt))
        return list(await (rail or self.rail).fund(self.offer(), self.money(units), wanted))

    async def credit(self, messages: list[Message]) -> int:
        """Have the shop acknowledge what is claimed; returns what the books then count."""
        for message in messages:
            await self.rail.finish(message.model_copy(update={"verb": "credited"}))
        account = await self.journal.commit(lambda tx: tx.get(r.Account, f"prepaid|{SHOP.address}"))
        return account.funded.units if account else 0

    async def paid(self) -> int:
        """What the shop was paid, read from the token."""
        return await token_balance(self.line, self.network, SHOP.address)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with clocked(tmp_path, Clock(monkeypatch)) as network:
        journal = await Journal.open(tmp_path / "payer", PAYER.address)
        line = Line(network)
        sender = Sender(journal, line, PAYER, network)
        rail = PrepaidRail(journal, line, PAYER, network, sender)
        yield Bench(network, journal, line, Budget(Allowance()), rail)
        await line.close()
        await journal.close()


async def test_credit_counts_once_when_its_top_up_is_acknowledged(bench: Bench) -> None:
    await bench.hold(3 * PRICE)
    claims = await bench.fund()
    assert [claim.verb for claim in claims] == ["topup"]
    assert await bench.credit([]) == 0, "not before the shop has said so"
    assert await bench.credit(claims * 2) == PRICE
    assert await bench.fund() == [], "there is enough"
    assert await bench.credit(await bench.fund(3 * PRICE)) == 3 * PRICE
    assert await bench.paid() == 3 * PRICE


async def test_what_was_not_acknowledged_is_claimed_again_and_not_paid_again(bench: Bench) -> None:
    await bench.hold(PRICE)
    first = await bench.fund()
    assert await bench.fund(rail=bench.another()) == first
    assert await bench.paid() == PRICE


def reverted(receipt: ChainReceipt) -> ChainReceipt:
    return replace(receipt, succeeded=False, logs=())


def bare(receipt: ChainReceipt) -> ChainReceipt:
    return replace(receipt, logs=())


@pytest.mark.parametrize("lie", [reverted, bare])
async def test_a_node_that_denies_a_top_up_has_nobody_paid_twice(
    bench: Bench, lie: Callable[[ChainReceipt], ChainReceipt]
) -> None:
    """It landed; the wallet is told that it did not, again and again."""
    await bench.hold(PRICE)
    bench.line.lie = lie
    with pytest.raises(ProtocolBroken):
        await bench.fund()
    assert bench.line.lies >= 2, "the fault was not reached"
    bench.line.lie = None
    assert await bench.credit(await bench.fund()) == PRICE
    assert await bench.fund() == []
    assert await bench.paid() == PRICE


async def test_a_node_that_says_its_nonce_is_gone_has_nobody_paid_twice(bench: Bench) -> None:
    """The call is signed under the next nonce then; a plain transfer would go out twice."""
    await bench.hold(PRICE)
    hidden = 0

    class Forgetful(Line):
        async def receipt(self, transaction: str) -> ChainReceipt | None:
            nonlocal hidden
            found = await super().receipt(transaction)
            if found and found.succeeded and hidden < 6:
                hidden += 1
                return None
            return found

    line = Forgetful(bench.network)
    sender = Sender(bench.journal, line, PAYER, bench.network)
    rail = PrepaidRail(bench.journal, line, PAYER, bench.network, sender)
    assert await bench.credit(await bench.fund(rail=rail)) == PRICE
    (row,) = await bench.journal.commit(lambda tx: tx.every(r.EvmTransaction, "topup:"))
    await line.close()
    assert len(row.transactions) > 1, "the fault was not reached"
    assert await bench.paid() == PRICE


async def test_a_top_up_that_somebody_else_brings_first_is_claimed(bench: Bench) -> None:
    await bench.hold(PRICE)
    stolen: list[str] = []

    async def steal(raw: bytes) -> None:
        call = Call.of(raw)
        fees = {"max_fee": call.max_fee, "max_tip": call.max_tip}
        mine = Call(call.chain_id, 0, call.to, call.data, call.gas, **fees)
        transaction, signed = ARBITER.sign_tx(mine)
        if not stolen:
            stolen.append(transaction)
            await Web3Chain.send(bench.line, signed)

    bench.line.before = steal
    (claim,) = await bench.fund()
    assert claim.body["transaction"] == stolen[0]
    assert await bench.credit([claim]) == PRICE
    assert await bench.paid() == PRICE


async def test_of_two_processes_at_once_one_tops_up(bench: Bench) -> None:
    await bench.hold(PRICE)
    rails = [bench.another(), bench.another()]
    claimed = await asyncio.gather(*(bench.fund(rail=rail) for rail in rails))
    assert sum(map(len, claimed)) >= 1
    assert await bench.paid() == PRICE
    assert await bench.credit([claim for claims in claimed for claim in claims]) == PRICE


async def test_a_wallet_that_lost_its_books_tops_up_by_a_number_that_is_free(
    bench: Bench, tmp_path: Path
) -> None:
    """What it transferred before is the shop's to know, and is not counted as credit here."""
    await bench.hold(PRICE)
    await bench.fund()
    books = await Journal.open(tmp_path / "new", PAYER.address)
    other = replace(bench, journal=books)
    other.rail = other.another()
    await other.hold(500)
    assert await other.credit(await other.fund(500)) == 500
    assert await bench.paid() == PRICE + 500
    await books.close()


async def test_no_more_than_the_hold_the_limit_and_the_wallet_allow(bench: Bench) -> None:
    assert await bench.fund() == [], "nothing is held for it"
    await bench.hold(2 * MINTED)
    with pytest.raises(InsufficientFunds, match="the wallet holds"):
        await bench.fund(MINTED + 1)
    strict = bench.another(Exposure(bench.money(PRICE)))
    with pytest.raises(OverBudget):
        await bench.fund(PRICE + 1, strict)
    assert await bench.paid() == 0
    assert await bench.journal.commit(lambda tx: tx.every(r.EvmTransaction)) == []


async def test_a_transfer_of_another_amount_or_to_another_is_no_top_up(bench: Bench) -> None:
    """The log has to say who, to whom and how much."""
    await bench.hold(PRICE)
    (claim,) = await bench.fund()
    receipt = await bench.line.receipt(claim.body["transaction"])
    assert receipt

    def changed(**words: int) -> ChainReceipt:
        def log(one: object) -> object:
            topics, data = list(one.topics), one.data  # type: ignore[attr-defined]
            if topics[0] == abi.TRANSFER:
                data = words.get("units", PRICE).to_bytes(32, "big")
                if "place" in words:
                    topics[words["place"]] = bytes(32)
            return replace(one, topics=tuple(topics), data=data)  # type: ignore[type-var]

        return replace(receipt, logs=tuple(map(log, receipt.logs)))  # type: ignore[arg-type]

    intent = f"topup:{SHOP.address}:0:0:{PRICE}"

    def check(receipt: ChainReceipt) -> Awaitable[None]:
        return bench.journal.commit(lambda tx: bench.rail._check_transfer(tx, intent, receipt))

    await check(receipt)
    for odd in ({"units": PRICE - 1}, {"place": 1}, {"place": 2}):
        with pytest.raises(SettlementFailed, match="transferred nothing"):
            await check(changed(**odd))


async def test_on_a_full_disk_nothing_leaves(bench: Bench) -> None:
    """What cannot be written down is not sent; with room again, it is paid once."""
    await bench.hold(PRICE)
    sent: list[bytes] = []

    async def note(raw: bytes) -> None:
        sent.append(raw)

    bench.line.before = note
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        with pytest.raises(StateError):
            await bench.fund()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sent == []
    assert await bench.credit(await bench.fund()) == PRICE
    assert await bench.paid() == PRICE
