"""Credit that is paid for in advance, on a real chain: each top-up lands once, whoever lies.

The provider is the stand-in of the embedded network, asked by the adapter over HTTP.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from support.chain_clock import ARBITER, PAYER, SHOP, Clock, clocked

from agentkit.embedded.stand_ins import hyperbolic
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
from agentkit.market.receipt import Standing
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Money
from agentkit.payments import abi, prepaid
from agentkit.payments.balance import token_balance
from agentkit.payments.budget import Budget, Exposure
from agentkit.payments.chain import Web3Chain
from agentkit.payments.credit import in_transit
from agentkit.payments.prepaid import PrepaidRail
from agentkit.payments.sender import Sender
from agentkit.providers.openai import HYPERBOLIC, EndpointSettings, OpenAI
from agentkit.runtime.attempt.funding import FUNDINGS

PRICE = 1000
CENT = 10_000
OWNED = 20 * CENT
KEY = "account-key"


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
    """A wallet, the rail that tops up its credit, and the provider that keeps it."""

    network: Network
    journal: Journal
    line: Line
    budget: Budget
    rail: PrepaidRail
    account: hyperbolic.Credit
    adapter: OpenAI

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

    def another(
        self, exposure: Exposure | None = None, budget: Budget | None = None
    ) -> PrepaidRail:
        """Return the rail of another process of this wallet."""
        sender = Sender(self.journal, self.line, PAYER, self.network)
        limits = {"exposure": exposure, "budget": budget}
        return PrepaidRail(self.journal, self.line, PAYER, self.network, sender, **limits)

    async def hold(self, units: int, run: str = "r1") -> None:
        await self.journal.commit(lambda tx: self.budget.hold(tx, run, self.money(units), None))

    def attempt(self, units: int, run: str = "r1", node: str = "n") -> Attempt:
        purchase, at_most = purchase_id(run, node), self.money(units)
        return Attempt.at(
            purchase, 0, self.offer(), run=run, item=None, task="cd" * 32, at_most=at_most
        )

    async def fund(
        self, units: int = PRICE, rail: PrepaidRail | None = None, run: str = "r1"
    ) -> list[Message]:
        """Ask the rail once, and return what the provider is to be told."""
        attempt = self.attempt(units, run)
        wanted = Wanted(attempt, lambda tx: self.budget.reserve(tx, attempt))
        return list(await (rail or self.rail).fund(self.offer(), self.money(units), wanted))

    async def carry(self, messages: list[Message]) -> None:
        for message in messages:
            await self.rail.finish(await self.adapter.carry(message))

    async def top_up(
        self, units: int = PRICE, rail: PrepaidRail | None = None, run: str = "r1"
    ) -> int:
        """Go on as a run does until nothing is missing; returns what the books count then."""
        for _ in range(FUNDINGS):
            await self.carry(await self.fund(units, rail, run))
        return await self.funded()

    async def prepare(self) -> None:
        """Have the address bound and the balance read, so that the next step is a transfer."""
        messages = await self.fund()
        assert [message.verb for message in messages] == ["bind", "balance"]
        await self.carry(messages)

    async def funded(self) -> int:
        """What the books count as credit."""
        account = await self.journal.commit(lambda tx: tx.get(r.Account, f"prepaid|{SHOP.address}"))
        return account.funded.units if account else 0

    async def spend(self, units: int, node: str, *, standing: Standing = "paid") -> None:
        """Buy something from the credit; the provider debits it unless the end is uncertain."""
        attempt = self.attempt(units, node=node)

        def buy(tx: Transaction) -> None:
            self.budget.reserve(tx, attempt)
            self.rail.reserve(tx, attempt)
            self.budget.spend(tx, attempt, attempt.at_most, standing)

        await self.journal.commit(buy)
        if standing == "paid":
            self.account.debit(attempt.id, units, {})

    async def transit(self) -> list[r.CreditTransfer]:
        return await self.journal.commit(in_transit)

    async def paid(self) -> int:
        """What the shop was paid, read from the token."""
        return await token_balance(self.line, self.network, SHOP.address)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(prepaid, "SHOWN_SECONDS", 3.0)
    async with clocked(tmp_path, Clock(monkeypatch), minted=OWNED) as network:
        journal = await Journal.open(tmp_path / "payer", PAYER.address)
        line = Line(network)
        sender = Sender(journal, line, PAYER, network)
        rail = PrepaidRail(journal, line, PAYER, network, sender)
        account = hyperbolic.Credit(tmp_path / "hyperbolic.db")
        nothing: Any = None  # no model is asked here
        app = hyperbolic.hyperbolic_app(nothing, account, network, key=KEY, payee=SHOP.address)
        async with TestServer(app) as server:
            settings = EndpointSettings({}, {}, payee=SHOP.address, key=KEY)
            adapter = OpenAI("far", str(server.make_url("")), network, HYPERBOLIC, settings)
            yield Bench(network, journal, line, Budget(Allowance()), rail, account, adapter)
            await adapter.close()
        account.close()
        await line.close()
        await journal.close()


async def test_credit_counts_once_when_the_balance_shows_it(bench: Bench) -> None:
    await bench.hold(CENT + 3 * PRICE)
    await bench.prepare()
    (question,) = await bench.fund()
    assert question.verb == "balance"
    assert await bench.paid() == CENT, "a cent is the least that is credited"
    assert await bench.funded() == 0, "not before the balance shows it"
    (sent,) = await bench.transit()
    assert (sent.amount.units, sent.standing) == (CENT, "in transit")
    since = [label for label in await bench.rail.balance() if label.startswith("transit to")]
    assert len(since) == 1 and " since 2" in since[0]
    await bench.carry([question, question])
    assert await bench.funded() == CENT
    assert await bench.transit() == []
    assert await bench.fund() == [], "there is enough"
    assert await bench.top_up(CENT + PRICE) == 3 * CENT, "two at least, which debits cannot hide"
    assert await bench.paid() == 3 * CENT


async def test_while_one_is_in_transit_nothing_more_is_sent(bench: Bench) -> None:
    await bench.hold(3 * CENT)
    await bench.prepare()
    await bench.fund()
    again = await bench.fund(3 * CENT, rail=bench.another())
    assert [message.verb for message in again] == ["balance"]
    assert await bench.paid() == CENT


async def test_what_is_transferred_without_a_binding_stays_in_transit_and_is_shown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that has forgotten the address credits nothing; nobody pays it again."""
    monkeypatch.setattr(prepaid, "SHOWN_SECONDS", 0.5)
    await bench.hold(3 * PRICE)
    await bench.prepare()
    bench.account._db.execute("delete from bound")
    assert await bench.top_up() == 0
    assert await bench.paid() == CENT, "one transfer, however often it is tried"
    attempt = bench.attempt(PRICE)

    def buy(tx: Transaction) -> None:
        bench.budget.reserve(tx, attempt)
        bench.rail.reserve(tx, attempt)

    with pytest.raises(InsufficientFunds, match="in transit to far since") as refused:
        await bench.journal.commit(buy)
    (sent,) = await bench.transit()
    assert SHOP.address in refused.value.hint and sent.transaction in refused.value.hint
    monkeypatch.setattr(prepaid, "LATE_SECONDS", 0.0)
    assert [message.verb for message in await bench.fund()] == ["bind", "balance"]


async def test_what_an_earlier_version_sent_in_vain_is_shown_and_stops_nothing(
    bench: Bench,
) -> None:
    """It asked the provider for credit by a call that the real service never had."""
    call = bench.rail._transfer_call(SHOP.address, number=0, units=48)
    sender = Sender(bench.journal, bench.line, PAYER, bench.network)
    await sender.send(f"topup:{SHOP.address}:0:0:48", bench.network.token, call)
    assert await bench.rail.balance() == {
        f"transit to {SHOP.address} since an earlier version": bench.money(48)
    }
    await bench.hold(PRICE)
    assert await bench.top_up() == CENT
    assert await bench.paid() == CENT + 48


async def test_debits_meanwhile_hide_no_arrival_and_fake_none(bench: Bench) -> None:
    """The balance falls by what is bought while the transfer is on its way."""
    await bench.hold(10 * CENT)
    assert await bench.top_up(CENT) == CENT
    bench.account._db.execute("delete from bound")
    await bench.carry(await bench.fund(CENT + PRICE))  # sends
    await bench.carry(await bench.fund(CENT + PRICE))
    assert await bench.paid() == 3 * CENT
    await bench.spend(CENT - 1, "a")
    for message in await bench.fund(3 * CENT):
        await bench.carry([message.model_copy(update={"body": {**message.body, "seconds": 0}})])
    assert await bench.funded() == CENT, "it is not credited there"
    bench.account.bind(PAYER.address, 0)
    bench.account._db.execute("update seen set at = 0")
    assert await bench.top_up(CENT) >= 3 * CENT
    assert await bench.transit() == []


async def test_what_is_paid_in_by_card_is_not_money_of_this_wallet(bench: Bench) -> None:
    bench.account._db.execute("insert into topups values('card', 2500000)")
    await bench.hold(PRICE)
    assert await bench.top_up() == CENT
    placed = await bench.rail.balance()
    ((label, amount),) = placed.items()
    assert amount.units == CENT
    assert "2.50" in label and "others paid in" in label


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
    await bench.prepare()
    bench.line.lie = lie
    with pytest.raises(ProtocolBroken):
        await bench.fund()
    assert bench.line.lies >= 2, "the fault was not reached"
    bench.line.lie = None
    assert await bench.top_up() == CENT
    assert await bench.fund() == []
    assert await bench.paid() == CENT


async def test_a_node_that_says_its_nonce_is_gone_has_nobody_paid_twice(bench: Bench) -> None:
    """The call is signed under the next nonce then; a plain transfer would go out twice."""
    await bench.hold(PRICE)
    await bench.prepare()
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
    assert await bench.top_up(rail=rail) == CENT
    (row,) = await bench.journal.commit(lambda tx: tx.every(r.EvmTransaction, "topup:"))
    await line.close()
    assert len(row.transactions) > 1, "the fault was not reached"
    assert await bench.paid() == CENT


async def test_a_top_up_that_somebody_else_brings_first_is_credited_once(bench: Bench) -> None:
    await bench.hold(PRICE)
    await bench.prepare()
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
    messages = await bench.fund()
    (sent,) = await bench.transit()
    assert sent.transaction == stolen[0]
    await bench.carry(messages)
    assert await bench.top_up() == CENT
    assert await bench.paid() == CENT


async def test_of_two_processes_at_once_one_tops_up(bench: Bench) -> None:
    await bench.hold(PRICE)
    await bench.prepare()
    rails = [bench.another(), bench.another()]
    asked = await asyncio.gather(*(bench.fund(rail=rail) for rail in rails))
    assert sum(map(len, asked)) >= 1
    assert await bench.paid() == CENT
    await bench.carry([message for messages in asked for message in messages])
    assert await bench.funded() == CENT


async def test_a_wallet_that_lost_its_books_tops_up_by_a_number_that_is_free(
    bench: Bench, tmp_path: Path
) -> None:
    """What it transferred before is the shop's to know, and is not counted as credit here."""
    await bench.hold(PRICE)
    assert await bench.top_up() == CENT
    books = await Journal.open(tmp_path / "new", PAYER.address)
    other = replace(bench, journal=books)
    other.rail = other.another()
    await other.hold(500)
    assert await other.top_up(500) == CENT
    assert await bench.paid() == 2 * CENT
    await books.close()


async def test_no_more_than_the_hold_the_limit_and_the_wallet_allow(bench: Bench) -> None:
    """The hold may be exceeded by the rounding alone, and by that only within every limit."""
    assert await bench.fund() == [], "nothing is held for it"
    await bench.hold(2 * OWNED)
    await bench.prepare()
    with pytest.raises(InsufficientFunds, match="the wallet holds"):
        await bench.fund(OWNED + 1)
    strict = bench.another(Exposure(bench.money(CENT)))
    with pytest.raises(OverBudget, match="exposure"):
        await bench.fund(CENT + 1, strict)
    await bench.hold(PRICE, run="r2")
    narrow = Budget(Allowance(per_run=bench.money(CENT - 1)))
    with pytest.raises(OverBudget, match="per_run"):
        await bench.fund(2 * PRICE, bench.another(budget=narrow), run="r2")
    assert await bench.paid() == 0
    assert await bench.journal.commit(lambda tx: tx.every(r.EvmTransaction)) == []
    assert await bench.transit() == []
    await bench.fund(5 * PRICE, run="r2")
    assert await bench.paid() == CENT, "rounded up from what is held, not from what is asked"


async def test_a_transfer_of_another_amount_or_to_another_is_no_top_up(bench: Bench) -> None:
    """The log has to say who, to whom and how much."""
    await bench.hold(PRICE)
    await bench.prepare()
    await bench.fund()
    (sent,) = await bench.transit()
    receipt = await bench.line.receipt(sent.transaction)
    assert receipt

    def changed(**words: int) -> ChainReceipt:
        def log(one: object) -> object:
            topics, data = list(one.topics), one.data  # type: ignore[attr-defined]
            if topics[0] == abi.TRANSFER:
                data = words.get("units", CENT).to_bytes(32, "big")
                if "place" in words:
                    topics[words["place"]] = bytes(32)
            return replace(one, topics=tuple(topics), data=data)  # type: ignore[type-var]

        return replace(receipt, logs=tuple(map(log, receipt.logs)))  # type: ignore[arg-type]

    intent = f"topup:{SHOP.address}:0:0:{CENT}"

    def check(receipt: ChainReceipt) -> Awaitable[None]:
        return bench.journal.commit(lambda tx: bench.rail._check_transfer(tx, intent, receipt))

    await check(receipt)
    for odd in ({"units": CENT - 1}, {"place": 1}, {"place": 2}):
        with pytest.raises(SettlementFailed, match="transferred nothing"):
            await check(changed(**odd))


async def test_on_a_full_disk_nothing_leaves(bench: Bench) -> None:
    """What cannot be written down is not sent; with room again, it is paid once."""
    await bench.hold(PRICE)
    await bench.prepare()
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
    assert await bench.top_up() == CENT
    assert await bench.paid() == CENT
