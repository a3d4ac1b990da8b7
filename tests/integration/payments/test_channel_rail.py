"""Channels whose other side says nothing: neither can keep the other's money."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.chain_clock import ARBITER, MINTED, PAYER, SHOP, Clock, clocked
from support.delivery_channels import (
    TASK,
    Payee,
    answer,
    ordered,
    payee_of,
    signed_voucher,
)

from agentkit.artifacts import Text
from agentkit.errors import (
    InsufficientFunds,
    OverBudget,
    ProtocolBroken,
    Refused,
    SettlementFailed,
    StoreUnavailable,
)
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Message, Payment, Result, purchase_id
from agentkit.market.batch_settlement import ERC3009_COLLECTOR, DepositPayload
from agentkit.market.chain import SETTLEMENT, Network
from agentkit.market.offer import Offer
from agentkit.market.seams import Transaction, Wanted
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.balance import token_balance
from agentkit.payments.budget import Budget, Exposure
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels import contract
from agentkit.payments.channels.book import VoucherBook
from agentkit.payments.channels.rail import ChannelRail
from agentkit.payments.channels.terms import ChannelTerms
from agentkit.payments.facilitator.own import OwnFacilitator
from agentkit.payments.sender import Sender

PRICE, HELD = 1000, 3000
DELAY = 3600


@dataclass
class Pair:
    """A payer with its channel rail, and a shop with its voucher book, on one chain."""

    network: Network
    payer: Journal
    chain: Web3Chain
    rail: ChannelRail
    payee: Payee
    clock: Clock
    folder: Path
    budget: Budget = Budget(Allowance())

    @property
    def book(self) -> VoucherBook:
        return self.payee.book

    def money(self, units: int) -> Money:
        return Money(units, self.network.currency)

    def offer(self) -> Offer:
        return Offer(
            provider="native",
            node="n",
            on="x",
            price=self.money(PRICE),
            at_most=self.money(PRICE),
            eta=1,
            expires=time.time() + 600,
            rail="channel",
            pays="on_delivery",
            payee=SHOP.address,
            rates={},
        )

    def wanted(self, attempt: Attempt) -> Wanted:
        return Wanted(attempt, lambda tx: self.budget.reserve(tx, attempt))

    async def fund(self, units: int = HELD) -> Attempt:
        """Hold for a run and have its channel funded with all of it."""
        attempt = await self.attempt(units)
        for message in await self.rail.fund(self.offer(), self.money(units), self.wanted(attempt)):
            assert message.verb == "deposit"
            await answer(self.rail, self.book, message)
        return attempt

    async def attempt(self, units: int) -> Attempt:
        """Hold for a run, and return an attempt of it."""
        purchase = purchase_id("r1", "n")
        attempt = Attempt.at(
            purchase,
            0,
            self.offer(),
            run="r1",
            item=None,
            task="cd" * 32,
            at_most=self.money(PRICE),
        )
        await self.payer.commit(lambda tx: self.budget.hold(tx, "r1", self.money(units), None))
        return attempt

    async def admit(self, body: dict[str, Any], units: int) -> str:
        """Have the shop look at a payment as it came, or ordered here."""
        if "order" not in body:
            body = ordered(PAYER, self.network, body, self.money(units), "ab" * 32)
        return await self.book.admit(body, "ab" * 32, TASK, self.money(units))

    async def pay(self, attempt: Attempt, units: int) -> Message:
        """Reserve, and promise a price; returns the message that tells the shop."""

        def work(tx: Transaction) -> Message:
            self.budget.reserve(tx, attempt)
            payment: Payment = self.rail.reserve(tx, attempt)
            assert payment.body["payer"] == PAYER.address
            result = Result((Text.of(b"x"),), {}, self.money(units))
            receipt, messages = self.rail.settle(tx, attempt, result)
            self.budget.spend(tx, attempt, receipt.amount, receipt.standing)
            self.budget.release(tx, "r1")
            return messages[0]

        return await self.payer.commit(work)

    async def balances(self) -> tuple[int, int, int]:
        who = (PAYER.address, SHOP.address, SETTLEMENT)
        found = [await token_balance(self.chain, self.network, address) for address in who]
        return found[0], found[1], found[2]

    async def channel(self) -> r.Channel:
        (row,) = await self.payer.commit(lambda tx: tx.every(r.Channel))
        return row


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    clock = Clock(monkeypatch)
    async with clocked(tmp_path, clock) as network:
        payer = await Journal.open(tmp_path / "payer", PAYER.address)
        shop = await Journal.open(tmp_path / "shop", SHOP.address)
        line = Web3Chain(network)
        sender = Sender(payer, line, PAYER, network)
        exposure = Exposure(Money(5000, network.currency))
        rail = ChannelRail(payer, line, PAYER, network, sender, exposure=exposure)
        payee = payee_of(shop, line, SHOP, network, Money(10**6, network.currency))
        yield Pair(network, payer, line, rail, payee, clock, tmp_path)
        await line.close()
        await payer.close()
        await shop.close()


async def test_a_silent_shop_gets_what_it_was_promised_and_no_more(pair: Pair) -> None:
    told = await pair.pay(await pair.fund(), 700)
    await pair.book.take(told.body)
    (message,) = await pair.rail.close()
    said = await pair.rail.insist(message)
    assert "comes back by `agentkit wallet close` from" in said
    (shown,) = await pair.rail.balance()
    assert said in shown, "wallet show says from when on it comes back"
    assert await pair.rail.insist(message) == said, "asked again it is the same request"
    pair.clock.skip(DELAY - 60)
    await pair.rail.insist(message)
    assert await pair.balances() == (MINTED - HELD, 0, HELD), "it is not time yet"
    await pair.payee.claiming.watch()  # the shop looks after its money, if it is alive at all
    assert await pair.balances() == (MINTED - HELD, 700, HELD - 700)
    pair.clock.skip(120)
    assert await pair.rail.insist(message) == "closed"
    assert await pair.balances() == (MINTED - 700, 700, 0)
    assert not (await pair.channel()).open
    assert await pair.rail.balance() == {}


async def test_a_dead_shop_keeps_nothing_it_never_claimed(pair: Pair) -> None:
    await pair.pay(await pair.fund(), 700)
    (message,) = await pair.rail.close()
    await pair.rail.insist(message)
    pair.clock.skip(DELAY + 1)
    assert await pair.rail.insist(message) == "closed"
    assert await pair.balances() == (MINTED, 0, 0)
    account = await pair.payer.commit(lambda tx: tx.get(r.Account, f"channel|{SHOP.address}"))
    assert account
    assert account.free == 0


async def test_a_shop_that_closes_meanwhile_is_found_on_the_chain(pair: Pair) -> None:
    told = await pair.pay(await pair.fund(), 700)
    await pair.book.take(told.body)
    (message,) = await pair.rail.close()
    await pair.rail.insist(message)
    await pair.book.close(message.body)  # and its answer is lost
    assert await pair.rail.insist(message) == "closed"
    await pair.payee.claiming.watch()  # one transfer for all that was claimed
    assert await pair.balances() == (MINTED - 700, 700, 0)


@pytest.mark.parametrize("channel", ["zz", "", "ab" * 32])
async def test_a_shop_that_names_no_channel_of_ours_has_closed_nothing(
    pair: Pair, channel: str
) -> None:
    told = await pair.pay(await pair.fund(), 700)
    await pair.book.take(told.body)
    (message,) = await pair.rail.close()
    lie = message.model_copy(update={"verb": "closed", "body": {"channel": channel}})
    with pytest.raises(ProtocolBroken, match="not its own"):
        await pair.rail.finish(lie)
    assert (await pair.channel()).open


async def test_a_shop_that_says_it_closed_and_did_not_is_not_believed(pair: Pair) -> None:
    told = await pair.pay(await pair.fund(), 700)
    await pair.book.take(told.body)
    (message,) = await pair.rail.close()
    with pytest.raises(ProtocolBroken, match="does not show that channel"):
        await pair.rail.finish(message.model_copy(update={"verb": "closed"}))
    assert (await pair.channel()).open


@pytest.mark.parametrize(
    "lie",
    [
        {"cumulative": 1 << 300},
        {"cumulative": -1},
        {"channel": "ab" * 40},
        {"delivered": 1 << 300, "cumulative": 0, "voucher": ""},
    ],
)
async def test_a_shop_that_shows_impossible_numbers_is_refused(
    pair: Pair, lie: dict[str, object]
) -> None:
    told = await pair.pay(await pair.fund(), 700)
    body = {**told.body, "delivered": 700, "attempts": []}
    best = told.model_copy(update={"verb": "best", "body": body})
    await pair.rail.finish(best)
    before = await pair.channel()
    with pytest.raises(ProtocolBroken, match="cannot be read"):
        await pair.rail.finish(best.model_copy(update={"body": {**body, **lie}}))
    assert await pair.channel() == before


async def test_a_shop_takes_no_work_on_a_channel_that_is_being_closed(pair: Pair) -> None:
    told = await pair.pay(await pair.fund(), 700)
    await pair.book.take(told.body)
    (message,) = await pair.rail.close()
    await pair.rail.insist(message)
    await pair.payee.claiming.watch()
    with pytest.raises(Refused, match="is closing"):
        await pair.admit(told.body, 1)


@pytest.mark.parametrize("is_watched", [True, False])
async def test_a_channel_that_was_emptied_buys_nothing_more(pair: Pair, is_watched: bool) -> None:
    """It is as it was for whoever has not looked since; a shop may have been away meanwhile."""
    told = await pair.pay(await pair.fund(), 700)
    await pair.book.take(told.body)
    await pair.payee.claiming.claim_all()
    (message,) = await pair.rail.close()
    await pair.rail.insist(message)
    if is_watched:
        await pair.payee.claiming.watch()
    pair.clock.skip(DELAY + 1)
    assert await pair.rail.insist(message) == "closed"
    assert await pair.balances() == (MINTED - 700, 700, 0)

    signature = signed_voucher(PAYER, pair.network, told.body["channel"], HELD)
    worthless = {**told.body, "cumulative": HELD, "voucher": signature}
    for body in (told.body, worthless):
        with pytest.raises(Refused):
            await pair.admit(body, 1)


async def test_a_refund_of_what_is_gone_is_not_ordered_for_ever(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many of them would keep the shop from its claims until other withdrawals end."""
    told = await pair.pay(await pair.fund(), 700)
    await pair.book.take(told.body)
    await pair.payee.claiming.claim_all()
    (message,) = await pair.rail.close()
    orders = 0

    async def fail(self: OwnFacilitator, payment: Any, requirement: Any) -> None:
        nonlocal orders
        orders += 1
        raise StoreUnavailable("it is away")

    monkeypatch.setattr(OwnFacilitator, "settle", fail)
    with pytest.raises(StoreUnavailable):
        await pair.book.close(message.body)
    await pair.rail.insist(message)
    pair.clock.skip(DELAY + 1)
    assert await pair.rail.insist(message) == "closed"
    for _ in range(3):
        await pair.payee.claiming.watch()
    assert orders == 1, "at the close, and at no look after it"
    assert await pair.balances() == (MINTED - 700, 700, 0)


async def test_only_idle_channels_are_closed_where_that_is_asked(pair: Pair) -> None:
    await pair.pay(await pair.fund(), 700)
    assert await pair.rail.close(idle=3600) == []
    pair.clock.skip(3601)
    assert len(await pair.rail.close(idle=3600)) == 1


async def test_no_more_is_put_with_one_payee_than_allowed(pair: Pair) -> None:
    """The run holds 8,000; what one shop could run away with is bounded by 5,000."""
    attempt = await pair.fund(8000)
    assert (await pair.balances())[2] == 5000
    other = attempt.model_copy(update={"at_most": pair.money(5001)})
    with pytest.raises(OverBudget) as over:
        await pair.rail.fund(pair.offer(), pair.money(8000), pair.wanted(other))
    assert over.value.limit == "exposure"
    assert (await pair.balances())[2] == 5000


async def test_a_payer_without_gas_is_told_apart_from_one_without_tokens(pair: Pair) -> None:
    drain = abi.encode("transfer(address,uint256)", SHOP.address, MINTED - 500)
    await pair.rail._sender.send("drain:0", pair.network.token, drain)
    with pytest.raises(InsufficientFunds, match=r"deposit of .* is needed, and the wallet holds"):
        await pair.fund()
    rows = await pair.payer.commit(lambda tx: tx.every(r.EvmTransaction, "fund:"))
    assert rows == []


async def test_a_voucher_that_never_reached_the_shop_is_shown_again(pair: Pair) -> None:
    """Lost on the way, it goes with the next request: the greatest covers the rest."""
    told = await pair.pay(await pair.fund(), 700)
    assert (await pair.book.take(told.body)).cumulative == 700
    signature = signed_voucher(PAYER, pair.network, told.body["channel"], 100)
    lower = {**told.body, "cumulative": 100, "voucher": signature}
    assert (await pair.book.take(lower)).cumulative == 700
    assert await pair.payer.commit(lambda tx: tx.rows(e.WALLET, 0, -1))


async def rolled_back(pair: Pair, folder: Path) -> tuple[Journal, ChannelRail]:
    """Open a copy of the payer's books as they were before, and its rail."""
    books = await Journal.open(folder, PAYER.address)
    sender = Sender(books, pair.chain, PAYER, pair.network)
    return books, ChannelRail(books, pair.chain, PAYER, pair.network, sender)


@pytest.mark.parametrize("told", [True, False])
async def test_an_old_copy_of_the_books_signs_nothing_below_what_the_chain_has_seen(
    pair: Pair, tmp_path: Path, told: bool
) -> None:
    """It is put back, and nothing says so: the contract knows of more than it does."""
    attempt = await pair.fund(PRICE)
    await pair.payer.close()
    shutil.copytree(tmp_path / "payer", tmp_path / "copy")
    pair.payer, pair.rail = await rolled_back(pair, tmp_path / "payer")
    promise = await pair.pay(attempt, 700)
    await pair.fund(HELD)
    if told:
        await pair.book.take(promise.body)
    books, rail = await rolled_back(pair, tmp_path / "copy")
    await books.commit(lambda tx: pair.budget.hold(tx, "r2", pair.money(HELD), None))
    late = attempt.model_copy(update={"run": "r2"})
    assert await rail.fund(pair.offer(), pair.money(HELD), pair.wanted(late)) == []
    (channel,) = await books.commit(lambda tx: tx.every(r.Channel))
    assert channel.doubtful
    with pytest.raises(InsufficientFunds):
        await books.commit(lambda tx: rail.reserve(tx, attempt))
    (question,) = await rail.fund(pair.offer(), pair.money(HELD), pair.wanted(late))
    answer = await pair.book.best(question.body)
    await rail.finish(question.model_copy(update={"body": answer}))
    (channel,) = await books.commit(lambda tx: tx.every(r.Channel))
    assert not channel.doubtful
    known = await pair.channel()
    assert (channel.deposited, channel.cumulative) == (known.deposited, 700 if told else 0)
    await books.close()


async def test_a_deposit_that_somebody_else_brings_first_is_counted_once(pair: Pair) -> None:
    """Ours is refused then, and the money is in the channel all the same."""
    attempt = await pair.attempt(HELD)
    (message,) = await pair.rail.fund(pair.offer(), pair.money(HELD), pair.wanted(attempt))
    payload = DepositPayload.model_validate(message.body["deposit"])
    drawing = payload.deposit.authorization.erc3009_authorization
    assert drawing
    data = contract.erc3009_data(
        0, int(drawing.valid_before), drawing.salt_number, bytes.fromhex(drawing.signature[2:])
    )
    terms = payload.channel_config.terms()
    call = contract.deposit_call(terms, HELD, ERC3009_COLLECTOR, data)
    other = await Journal.open(pair.folder / "somebody", ARBITER.address)
    await Sender(other, pair.chain, ARBITER, pair.network).send("brought:1", SETTLEMENT, call)
    await other.close()
    with pytest.raises(Refused, match="not drawn"):
        await answer(pair.rail, pair.book, message)
    assert await pair.rail.fund(pair.offer(), pair.money(HELD), pair.wanted(attempt)) == []
    channel = await pair.channel()
    assert (channel.deposited, channel.deposit, channel.doubtful) == (HELD, 0, False)
    key = f"channel|{SHOP.address}"
    account = await pair.payer.commit(lambda tx: tx.get(r.Account, key))
    assert account
    assert account.funded.units == HELD
    assert await pair.balances() == (MINTED - HELD, 0, HELD)
    assert (await pair.pay(attempt, 700)).body["cumulative"] == 700


async def test_a_deposit_is_signed_once_whatever_becomes_of_the_message(pair: Pair) -> None:
    """The same leaves again until the chain shows it, or shows that it is too late."""
    attempt = await pair.attempt(HELD)
    asked = pair.offer(), pair.money(HELD), pair.wanted(attempt)
    (first,) = await pair.rail.fund(*asked)
    (again,) = await pair.rail.fund(*asked)
    assert first.body["deposit"] == again.body["deposit"]
    await pair.book.deposit(first.body)  # and its answer is lost
    assert await pair.rail.fund(*asked) == []
    assert await pair.balances() == (MINTED - HELD, 0, HELD)


async def test_a_deposit_that_was_never_drawn_is_given_up_and_signed_anew(pair: Pair) -> None:
    attempt = await pair.attempt(HELD)
    asked = pair.offer(), pair.money(HELD), pair.wanted(attempt)
    (first,) = await pair.rail.fund(*asked)
    with pytest.raises(SettlementFailed, match="still under way"):
        await pair.rail.close()
    pair.clock.skip(1000)
    drain = abi.encode("transfer(address,uint256)", SHOP.address, 1)
    await pair.rail._sender.send("tick:0", pair.network.token, drain)  # a block past its time
    (second,) = await pair.rail.fund(*asked)
    assert first.body["deposit"] != second.body["deposit"]
    with pytest.raises(Refused, match="not drawn"):
        await pair.book.deposit(first.body)
    await answer(pair.rail, pair.book, second)
    assert await pair.balances() == (MINTED - HELD - 1, 1, HELD)


async def test_a_channel_that_is_closing_when_it_is_first_seen_gets_no_work(pair: Pair) -> None:
    """Its payer could take everything back before the shop looks at the chain again."""
    attempt = await pair.fund()
    row = await pair.channel()
    data = contract.withdraw_call(ChannelTerms.of(row, row.payee).config, HELD)
    await pair.rail._sender.send("close:1", SETTLEMENT, data)
    payment = await pair.payer.commit(lambda tx: pair.rail.reserve(tx, attempt))
    pair.clock.skip(400)  # the shop has looked when the deposit came, and looks again
    with pytest.raises(Refused, match="is closing"):
        await pair.book.admit(payment.body, attempt.id, TASK, pair.money(PRICE))


async def test_what_a_stranger_says_of_a_channel_is_not_believed(pair: Pair) -> None:
    """After a restore, whom the channel is with says what was promised on it."""
    attempt = await pair.fund()
    await pair.payer.commit(lambda tx: tx.append(e.WALLET, e.Restored(events=0)))
    (question,) = await pair.rail.fund(pair.offer(), pair.money(HELD), pair.wanted(attempt))
    answer = await pair.book.best(question.body)
    with pytest.raises(ProtocolBroken, match="not its own"):
        changed = {"body": answer, "provider_node": "another"}
        await pair.rail.finish(question.model_copy(update=changed))
    assert (await pair.channel()).doubtful


async def test_of_many_vouchers_at_once_the_greatest_is_kept(pair: Pair) -> None:
    """In whatever order they come, and with a forged one among them."""
    attempt = await pair.fund()
    payment = await pair.payer.commit(lambda tx: pair.rail.reserve(tx, attempt))
    channel = payment.body["channel"]

    def body(units: int, signer: KeySigner = PAYER) -> dict[str, object]:
        signature = signed_voucher(signer, pair.network, channel, units)
        return {**payment.body, "cumulative": units, "tasks": units, "voucher": signature}

    units = list(range(1, 65))
    random.Random(1).shuffle(units)
    bodies = [body(one) for one in units]
    bodies.insert(20, body(900, ARBITER))
    outcomes = await asyncio.gather(*map(pair.book.take, bodies), return_exceptions=True)
    wrong = [one for one in outcomes if isinstance(one, BaseException)]
    assert [type(one) for one in wrong] == [Refused]
    assert wrong[0] is outcomes[20]
    (booked,) = await pair.book.books()
    assert booked.cumulative == 64
