"""Money in escrow: what each side may do with it, on a real chain, whatever the other one says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from support.chain_clock import ARBITER, MINTED, PAYER, SHOP, Clock, clocked
from support.timing import limit

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
from agentkit.journal.produced import Produced
from agentkit.keys.messages import Accept
from agentkit.keys.messages import UnsignedTransaction as Call
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, Message, Result, purchase_id
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.seams import Transaction, Wanted
from agentkit.market.x402 import Settled
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.balance import token_balance
from agentkit.payments.budget import Budget
from agentkit.payments.chain import Web3Chain
from agentkit.payments.escrow import terms
from agentkit.payments.escrow.book import JUDGE_WINDOW, MIN_DELIVERY, SUBMIT_BEFORE, EscrowBook
from agentkit.payments.escrow.rail import EscrowRail
from agentkit.payments.escrow.relay import EscrowOrder, EscrowRelay
from agentkit.payments.escrow.terms import EscrowJob
from agentkit.payments.facilitator.app import facilitator_app
from agentkit.payments.facilitator.service import FacilitatorService
from agentkit.payments.sender import Sender
from agentkit.payments.x402.remote import Facilitator
from agentkit.serve.jobs import _take as take

PRICE = 1000
ANSWER = Text.of(b"the answer")
TASK = "cd" * 32
RESULT = bytes(32)


@dataclass
class Pair:
    """A payer and a shop, each with books of its own, on one chain whose clock can be set."""

    network: Network
    payer: Journal
    shop: Journal
    chain: Web3Chain
    rail: EscrowRail
    book: EscrowBook
    clock: Any
    budget: Budget = Budget(Allowance())

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
            rail="escrow",
            pays="on_delivery",
            payee=SHOP.address,
            rates={},
        )

    def attempt(self, n: int = 0) -> Attempt:
        purchase = purchase_id("r1", "n", n)
        return Attempt.at(
            purchase, 0, self.offer(), run="r1", item=n, task=TASK, at_most=self.money(PRICE)
        )

    def wanted(self, attempt: Attempt) -> Wanted:
        return Wanted(attempt, lambda tx: self.budget.reserve(tx, attempt))

    async def hold(self, units: int = PRICE) -> None:
        await self.payer.commit(lambda tx: self.budget.hold(tx, "r1", self.money(units), None))

    async def ask(self, attempt: Attempt) -> Message:
        """Ask for a quote and return the shop's answer, not taken yet."""
        (question,) = await self.rail.fund(self.offer(), attempt.at_most, self.wanted(attempt))
        assert question.verb == "quote"
        answer = self.book.quote(question.body)
        return question.model_copy(update={"verb": "quoted", "body": answer})

    async def open(self, n: int = 0) -> Attempt:
        """Have an attempt's price locked and reserved."""
        attempt = self.attempt(n)
        await self.hold()
        await self.rail.finish(await self.ask(attempt))
        assert await self.rail.fund(self.offer(), attempt.at_most, self.wanted(attempt)) == []

        def reserve(tx: Transaction) -> Any:
            self.budget.reserve(tx, attempt)
            return self.rail.reserve(tx, attempt)

        payment = await self.payer.commit(reserve)
        await self.book.admit(payment.body, attempt.id, TASK, attempt.at_most)
        return attempt

    async def deliver(self, attempt: Attempt, price: int, state: str = "done") -> Result:
        """Have the shop's books say that it did the work, or failed at it."""
        known = await self.row(attempt)
        taken = e.JobTaken(
            attempt=attempt.id,
            task="t",
            payer=PAYER.address,
            channel=known.id,
            at_most=attempt.at_most,
            escrow=known.job,
        )
        ended = e.JobEnded(attempt=attempt.id, state="failed", reason="broken")
        if state == "done":
            outputs = (Produced.of(ANSWER),)
            ended = e.JobEnded(
                attempt=attempt.id, state="done", outputs=outputs, price=self.money(price)
            )
        for event in (taken, ended):
            await self.shop.commit(lambda tx, event=event: tx.append(e.NODE, event))
        return Result((ANSWER,), {}, self.money(price))

    async def pay(self, attempt: Attempt, result: Result) -> Message:
        """Give our word for a result; returns the message that tells the shop."""

        def settle(tx: Transaction) -> Message:
            receipt, messages = self.rail.settle(tx, attempt, result)
            self.budget.spend(tx, attempt, receipt.amount, receipt.standing)
            return messages[0]

        return await self.payer.commit(settle)

    async def refuse(self, attempt: Attempt) -> bool:
        def close(tx: Transaction) -> bool:
            may_be_drawn = self.rail.release(tx, attempt, uncertain=False)
            if not may_be_drawn:
                self.budget.unreserve(tx, attempt)
            return may_be_drawn

        return await self.payer.commit(close)

    async def end_run(self) -> None:
        """End the run that bought: whatever is left of it is not under way any more."""
        await self.payer.commit(lambda tx: self.budget.release(tx, "r1"))

    async def row(self, attempt: Attempt) -> r.Escrow:
        found = await self.payer.commit(lambda tx: tx.get(r.Escrow, attempt.id))
        assert found
        return found

    async def held(self) -> int:
        total = await self.payer.commit(
            lambda tx: tx.get(r.Total, f"held|{self.network.currency.id}")
        )
        return total.amount.units if total else 0

    async def spent(self) -> int:
        total = await self.payer.commit(
            lambda tx: tx.get(r.Total, f"ever|{self.network.currency.id}")
        )
        return total.amount.units if total else 0

    async def balances(self) -> tuple[int, int, int]:
        """What payer, shop and contract have, read from the token."""
        who = (PAYER.address, SHOP.address, self.network.escrow)
        found = [await token_balance(self.chain, self.network, address) for address in who]
        return found[0], found[1], found[2]

    async def state(self, attempt: Attempt) -> int:
        job = EscrowJob.read((await self.row(attempt)).job)
        return (await terms.state_of(self.chain, self.network, job.id(self.network)))[0]

    async def opened(self) -> int:
        """How many jobs were ever opened on the chain."""
        logs = await self.chain.logs(self.network.escrow, [abi.OPENED], 0, await self.chain.head())
        return len(logs)


@pytest.fixture
async def pair(
    request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    clock = Clock(monkeypatch)
    arbiter = getattr(request, "param", terms.NOBODY)
    async with clocked(tmp_path, clock) as network:
        payer = await Journal.open(tmp_path / "payer", PAYER.address)
        shop = await Journal.open(tmp_path / "shop", SHOP.address)
        line = Web3Chain(network)
        sender = Sender(payer, line, PAYER, network)
        rail = EscrowRail(payer, line, PAYER, network, sender, arbiter=arbiter)
        book = EscrowBook(shop, line, SHOP, network, arbiters=(arbiter,))
        yield Pair(network, payer, shop, line, rail, book, clock)
        await line.close()
        await payer.close()
        await shop.close()


async def closing(pair: Pair) -> list[Message]:
    return list(await pair.rail.close())


@dataclass
class Relayed:
    """A pair whose shop spends no gas."""

    pair: Pair
    facilitator: Facilitator
    relay: EscrowRelay

    async def coins(self) -> tuple[int, int]:
        """What the shop and the facilitator have for gas."""
        chain = self.pair.chain
        return await chain.balance(SHOP.address), await chain.balance(ARBITER.address)

    async def order(self, attempt: Attempt, pay: int, **changes: Any) -> EscrowOrder:
        """What settles an attempt's job at `pay`, signed by both."""
        job = EscrowJob.read((await self.pair.row(attempt)).job)
        job = replace(job, quote=replace(job.quote, **changes))
        word, domain = (
            Accept(job.id(self.pair.network), pay, RESULT),
            self.pair.network.escrow_domain,
        )
        payer, provider = PAYER.sign_accept(domain, word), SHOP.sign_accept(domain, word)
        return EscrowOrder.agreed(job, word, payer=payer, provider=provider)


@pytest.fixture
async def relayed(pair: Pair, tmp_path: Path) -> AsyncIterator[Relayed]:
    """The pair, whose shop has its jobs settled by a facilitator, which has the arbiter's key."""
    journal = await Journal.open(tmp_path / "facilitator", ARBITER.address)
    service = FacilitatorService(
        journal, pair.chain, ARBITER, pair.network, least=pair.money(PRICE)
    )
    async with TestServer(facilitator_app(service)) as server:
        facilitator = Facilitator(str(server.make_url("/")))
        relay = EscrowRelay(facilitator, pair.chain, pair.network)
        pair.book = EscrowBook(pair.shop, pair.chain, SHOP, pair.network, relay=relay)
        yield Relayed(pair, facilitator, relay)
        await facilitator.close()
    await journal.close()


# -- the way it should go ------------------------------------------------------------------------


async def test_what_was_accepted_is_paid_and_the_rest_comes_back(pair: Pair) -> None:
    attempt = await pair.open()
    assert await pair.balances() == (MINTED - PRICE, 0, PRICE)
    word = await pair.pay(attempt, await pair.deliver(attempt, 700))
    await pair.book.accept(word.body)
    assert await pair.balances() == (MINTED - PRICE, 0, PRICE), "nothing moves before it must"
    assert await pair.rail.balance() == {"escrow with native": pair.money(PRICE)}
    (message,) = await closing(pair)
    assert message.verb == "settle"
    answer = await pair.book.settle(message.body)
    await pair.rail.finish(message.model_copy(update={"verb": "settled", "body": answer}))
    assert await pair.balances() == (MINTED - 700, 700, 0)
    assert await pair.spent() == 700
    assert await pair.rail.balance() == {}
    assert await closing(pair) == []


async def test_the_shop_brings_a_word_home_by_itself(pair: Pair) -> None:
    attempt = await pair.open()
    word = await pair.pay(attempt, await pair.deliver(attempt, 700))
    await pair.book.accept(word.body)
    for _ in range(2):
        await pair.book.watch()
    assert await pair.balances() == (MINTED - 700, 700, 0)


async def test_a_facilitator_brings_a_word_home_for_a_shop_without_gas(relayed: Relayed) -> None:
    pair = relayed.pair
    attempt = await pair.open()
    word = await pair.pay(attempt, await pair.deliver(attempt, 700))
    shop, facilitator = await relayed.coins()
    await pair.book.accept({**word.body, "accept": word.body["accept"].upper()})
    await pair.book.watch()
    assert await pair.balances() == (MINTED - 700, 700, 0)
    assert (await relayed.coins())[0] == shop
    assert (await relayed.coins())[1] < facilitator
    (message,) = await closing(pair)
    answer = await pair.book.settle(message.body)  # told again, it is the same transaction
    await pair.rail.finish(message.model_copy(update={"verb": "settled", "body": answer}))
    assert await pair.spent() == 700


async def test_a_facilitator_claims_what_nobody_judged(relayed: Relayed) -> None:
    pair = relayed.pair
    attempt = await pair.open()
    await pair.deliver(attempt, PRICE)
    pair.clock.skip(MIN_DELIVERY - SUBMIT_BEFORE + 5)
    await pair.book.watch()  # to submit is the provider's alone
    assert await pair.state(attempt) == terms.SUBMITTED
    shop, _ = await relayed.coins()
    pair.clock.skip(JUDGE_WINDOW + 5)
    await pair.book.watch()
    assert await pair.balances() == (MINTED - PRICE, PRICE, 0)
    assert (await relayed.coins())[0] == shop


async def test_a_settlement_that_was_not_written_down_is_found_on_the_chain(
    relayed: Relayed,
) -> None:
    pair = relayed.pair
    attempt = await pair.open()
    result = await pair.deliver(attempt, 700)
    word = await pair.pay(attempt, result)
    await pair.book.accept(word.body)
    earned = await pair.shop.commit(lambda tx: tx.get(r.EarnedEscrow, attempt.id))
    assert earned is not None
    await relayed.relay.settle(await relayed.order(attempt, 700))
    elsewhere = Facilitator("http://127.0.0.1:1")  # the next facilitator knows nothing of it
    relay = EscrowRelay(elsewhere, pair.chain, pair.network)
    book = EscrowBook(pair.shop, pair.chain, SHOP, pair.network, relay=relay)
    await book.watch()
    await elsewhere.close()
    earned = await pair.shop.commit(lambda tx: tx.get(r.EarnedEscrow, attempt.id))
    assert earned is not None
    assert earned.settled


async def test_a_shop_for_whom_nobody_pays_gas_sells_nothing_and_gives_back(
    relayed: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = relayed.pair
    attempt = await pair.open()
    await pair.end_run()

    async def no_coins(address: str) -> int:
        return 0

    async def away(*_: str) -> bool:
        raise StoreUnavailable("the facilitator does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(pair.chain, "balance", no_coins)
        await pair.book.look()
        assert pair.book.sells, "its facilitator is there"
        patch.setattr(relayed.facilitator, "settles", away)
        await pair.book.look()
        assert not pair.book.sells
        question = (
            await pair.rail.fund(pair.offer(), pair.money(PRICE), pair.wanted(pair.attempt(1)))
        )[0]
        with pytest.raises(Refused, match="could not claim the money"):
            pair.book.quote(question.body)
        (message,) = await closing(pair)
        assert message.verb == "refund"
        answer = await pair.book.give_back(message.body)  # which needs no gas
        assert answer["attempt"] == attempt.id
    await pair.book.watch()
    assert pair.book.sells, "and it looks again"


async def test_a_facilitator_that_lies_leaves_the_shop_its_own_gas(
    relayed: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = relayed.pair
    attempt = await pair.open()
    word = await pair.pay(attempt, await pair.deliver(attempt, 700))
    await pair.book.accept(word.body)

    async def lie(*_: Any) -> Settled:
        return Settled(success=True, transaction="0x" + "77" * 32, network=pair.network.id)

    monkeypatch.setattr(relayed.facilitator, "settle", lie)
    await pair.book.watch()
    assert await pair.balances() == (MINTED - 700, 700, 0)


async def test_a_facilitator_pays_no_gas_for_what_moves_nothing(relayed: Relayed) -> None:
    pair = relayed.pair
    attempt = await pair.open()
    _, before = await relayed.coins()
    never_opened = await relayed.order(attempt, PRICE, task_id=bytes(32))
    good = await relayed.order(attempt, PRICE - 1)
    too_early = EscrowOrder(job=good.job)
    assert good.acceptance
    mine = good.acceptance.payer
    one_sided = EscrowOrder(
        job=good.job, acceptance=good.acceptance.model_copy(update={"provider": mine})
    )
    above = await relayed.order(attempt, PRICE + 1)
    small = await relayed.order(attempt, 1, price=PRICE - 1)
    foreign = await relayed.order(attempt, PRICE, token="0x" + "77" * 20)
    for order in (never_opened, one_sided, too_early, above, small, foreign):
        with pytest.raises(Refused, match="the facilitator does not settle it: "):
            await relayed.relay.settle(order)
    with pytest.raises(ProtocolBroken):
        EscrowOrder(job={"quote": {}}).read_job()
    assert (await relayed.coins())[1] == before
    first = await relayed.relay.settle(good)
    assert (await relayed.relay.settle(good)).transaction == first.transaction
    with pytest.raises(Refused, match="escrow_transaction_failed"):
        await relayed.relay.settle(await relayed.order(attempt, PRICE))
    assert await pair.balances() == (MINTED - PRICE + 1, PRICE - 1, 0)


async def test_an_attempt_is_locked_once_however_often_it_is_asked_for(pair: Pair) -> None:
    attempt = await pair.open()
    for _ in range(3):
        assert await pair.rail.fund(pair.offer(), attempt.at_most, pair.wanted(attempt)) == []
    assert await pair.opened() == 1
    assert await pair.balances() == (MINTED - PRICE, 0, PRICE)


async def test_a_word_is_given_once(pair: Pair) -> None:
    attempt = await pair.open()
    result = await pair.deliver(attempt, 700)
    first = await pair.pay(attempt, result)
    assert (await pair.pay(attempt, replace(result, price=pair.money(900)))).body == first.body
    assert await pair.spent() == 700


# -- quotes --------------------------------------------------------------------------------------


def other(quote: Any, **changes: Any) -> Any:
    return replace(quote, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"price": PRICE + 1}, "is not over"),
        ({"price": PRICE - 1}, "is not over"),
        ({"payer": SHOP.address}, "another payer"),
        ({"provider": ARBITER.address}, "pays somebody else"),
        ({"token": ARBITER.address}, "another token"),
        ({"arbiter": SHOP.address}, "another arbiter"),
        ({"task_id": b"\x01" * 32}, "another attempt"),
        ({"spec_hash": b"\x01" * 32}, "another task"),
        ({"deliver_by": 1}, "odd time"),
        ({"deliver_by": 2**39}, "odd time"),
        ({"judge_window": 10**8}, "odd windows"),
        ({"arbiter_window": 31 * 86400}, "odd windows"),
        ({"quote_expiry": 1}, "expired"),
        ({"quote_expiry": 2**40}, "lasts too long"),
        ({"default_bps": 10**4}, "not signed"),
        ({"default_bps": 5001}, "more than half"),
        ({"judge_window": 1}, "no time to judge"),
        ({"arbiter_window": 1}, "no time to the arbiter"),
    ],
)
async def test_a_quote_that_is_not_what_was_asked_for_is_not_opened(
    pair: Pair, changes: dict[str, Any], reason: str
) -> None:
    answer = await pair.ask(pair.attempt())
    job = EscrowJob.read(answer.body)
    changed = replace(job.quote, **changes)
    signature = SHOP.sign_quote(pair.network.escrow_domain, changed)
    if reason == "not signed":
        signature = ARBITER.sign_quote(pair.network.escrow_domain, changed)
    body = {**EscrowJob(changed, signature).document(), "attempt": answer.body["attempt"]}
    with pytest.raises(ProtocolBroken, match=reason):
        await pair.rail.finish(answer.model_copy(update={"body": body}))
    assert await pair.payer.commit(lambda tx: tx.every(r.Escrow)) == []
    assert await pair.opened() == 0


NUMBER = int("1" * 42)
"""As text, it has as many hex digits as an address."""


@pytest.mark.parametrize("odd", [NUMBER, "zz" + "11" * 20, None, ["0x"]])
async def test_a_quote_of_odd_parties_is_the_payees_error(pair: Pair, odd: object) -> None:
    """Whatever it is, the run goes on to the next provider."""
    answer = await pair.ask(pair.attempt())
    quote = {**answer.body["quote"], "payer": odd}
    with pytest.raises(ProtocolBroken, match="cannot be read"):
        await pair.rail.finish(answer.model_copy(update={"body": {**answer.body, "quote": quote}}))


@pytest.mark.parametrize("body", [{}, {"quote": 7}, {"quote": {}, "signature": ""}])
async def test_nonsense_is_no_quote(pair: Pair, body: dict[str, Any]) -> None:
    answer = await pair.ask(pair.attempt())
    with pytest.raises(ProtocolBroken, match="cannot be read"):
        attempt = {"attempt": answer.body["attempt"]}
        await pair.rail.finish(answer.model_copy(update={"body": {**body, **attempt}}))
    with pytest.raises(ProtocolBroken, match="nobody asked for"):
        await pair.rail.finish(answer)


async def test_a_quote_that_expires_unopened_is_asked_for_anew(pair: Pair) -> None:
    attempt = pair.attempt()
    await pair.hold()
    await pair.rail.finish(await pair.ask(attempt))
    pair.clock.skip(3600)
    await pair.rail.finish(await pair.ask(attempt))
    assert await pair.rail.fund(pair.offer(), attempt.at_most, pair.wanted(attempt)) == []
    assert (await pair.row(attempt)).state == "open"
    assert await pair.opened() == 1


async def test_more_than_the_wallet_holds_is_not_locked(pair: Pair) -> None:
    attempt = pair.attempt()
    await pair.rail.finish(await pair.ask(attempt))
    drain = abi.encode("transfer(address,uint256)", ARBITER.address, MINTED)
    await pair.rail._sender.send("drain:all", pair.network.token, drain)
    with pytest.raises(InsufficientFunds, match=r"is needed, and the wallet holds 0\.00"):
        await pair.rail.fund(pair.offer(), attempt.at_most, pair.wanted(attempt))
    assert await pair.opened() == 0


async def test_nothing_is_locked_that_was_not_set_aside(pair: Pair) -> None:
    """Locked before the run has set it aside, it could be spent a second time elsewhere."""
    attempt = pair.attempt()
    await pair.hold(PRICE - 1)
    await pair.rail.finish(await pair.ask(attempt))
    with pytest.raises(OverBudget) as over:
        await pair.rail.fund(pair.offer(), attempt.at_most, pair.wanted(attempt))
    assert over.value.limit == "hold"
    assert (await pair.opened(), (await pair.row(attempt)).state) == (0, "quoted")
    await pair.hold(1)
    await pair.rail.fund(pair.offer(), attempt.at_most, pair.wanted(attempt))
    assert await pair.opened() == 1
    left = await pair.payer.commit(lambda tx: pair.budget.left(tx, "r1"))
    assert left == pair.money(0), "reserved with the signature, before the attempt is opened"


# -- the shop's side -----------------------------------------------------------------------------


async def test_the_shop_works_only_for_money_that_is_locked_for_it(pair: Pair) -> None:
    attempt = await pair.open()
    body = {"escrow": (await pair.row(attempt)).job}
    with pytest.raises(Refused, match="another attempt"):
        await pair.book.admit(body, "ee" * 32, TASK, pair.money(PRICE))
    with pytest.raises(Refused, match="another task"):
        await pair.book.admit(body, attempt.id, "ee" * 32, pair.money(PRICE))
    with pytest.raises(Refused, match="are needed"):
        await pair.book.admit(body, attempt.id, TASK, pair.money(PRICE + 1))
    unopened = await pair.ask(pair.attempt(7))
    with pytest.raises(Refused, match="no money is in escrow"):
        escrow = {"escrow": unopened.body}
        await pair.book.admit(escrow, pair.attempt(7).id, TASK, pair.money(PRICE))
    forged = EscrowJob.read(body["escrow"])
    forged = replace(forged, quote=replace(forged.quote, price=10**6))
    with pytest.raises(Refused, match="has not quoted"):
        await pair.book.admit({"escrow": forged.document()}, attempt.id, TASK, pair.money(PRICE))
    pair.clock.skip(30 * 86400)
    with pytest.raises(Refused, match="no money is in escrow"):
        await pair.book.admit(body, attempt.id, TASK, pair.money(PRICE))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pay": 699}, "another price"),
        ({"pay": 701}, "another price"),
        ({"result": "ee" * 32}, "another result"),
        ({"accept": "00" * 65}, "not signed by the payer"),
        ({"accept": "no hex"}, "cannot be read"),
        ({"accept": None}, "cannot be read"),
    ],
)
async def test_the_shop_takes_no_other_word(
    pair: Pair, change: dict[str, Any], reason: str
) -> None:
    attempt = await pair.open()
    word = await pair.pay(attempt, await pair.deliver(attempt, 700))
    with pytest.raises(Refused, match=reason):
        await pair.book.accept({**word.body, **change})
    await pair.book.watch()
    assert await pair.balances() == (MINTED - PRICE, 0, PRICE)


async def test_a_payer_that_says_nothing_pays_the_price(pair: Pair) -> None:
    attempt = await pair.open()
    await pair.deliver(attempt, 700)
    await pair.book.watch()
    assert await pair.state(attempt) == terms.FUNDED, "it is not time yet"
    pair.clock.skip(3600 - 600)
    await pair.book.watch()
    assert await pair.state(attempt) == terms.SUBMITTED
    pair.clock.skip(3601)
    await pair.book.watch()
    assert await pair.state(attempt) == terms.PAID
    assert await pair.balances() == (MINTED - PRICE, PRICE, 0)


# -- what comes back -----------------------------------------------------------------------------


async def test_what_was_not_delivered_stays_reserved_until_the_shop_gives_it_back(
    pair: Pair,
) -> None:
    """Freed at once, it could be spent twice: here, and by a shop that claims it later."""
    attempt = await pair.open()
    await pair.deliver(attempt, 0, state="failed")
    assert await pair.refuse(attempt) is True
    await pair.end_run()
    assert await pair.held() == PRICE
    (message,) = await closing(pair)
    assert message.verb == "refund"
    answer = await pair.book.give_back(message.body)
    written = len(await pair.shop.rows(e.NODE))
    assert await pair.book.give_back(message.body) == answer
    assert len(await pair.shop.rows(e.NODE)) == written
    await pair.rail.finish(message.model_copy(update={"verb": "released", "body": answer}))
    assert await pair.balances() == (MINTED, 0, 0)
    assert (await pair.held(), await pair.spent()) == (0, 0)
    with pytest.raises(Refused):
        body = {"escrow": (await pair.row(attempt)).job}
        await pair.book.admit(body, attempt.id, TASK, pair.money(PRICE))


async def test_what_was_delivered_is_not_given_back(pair: Pair) -> None:
    attempt = await pair.open()
    await pair.deliver(attempt, 700)
    await pair.refuse(attempt)
    await pair.end_run()
    (message,) = await closing(pair)
    with pytest.raises(Refused, match="was delivered"):
        await pair.book.give_back(message.body)


async def test_only_the_payer_is_told_that_a_job_is_given_up(pair: Pair) -> None:
    attempt = await pair.open()
    body = {**(await pair.row(attempt)).job, "attempt": attempt.id, "proof": "00" * 65}
    with pytest.raises(Refused, match="not signed by the payer"):
        await pair.book.give_back(body)
    await pair.book.admit({"escrow": body}, attempt.id, TASK, pair.money(PRICE))


async def test_a_false_word_brings_nothing_back_and_ends_nothing(pair: Pair) -> None:
    attempt = await pair.open()
    await pair.refuse(attempt)
    body = {"attempt": attempt.id, "release": "11" * 65}
    said = Message(rail="escrow", provider="native", verb="released", body=body)
    with pytest.raises(ProtocolBroken, match="not signed by it"):
        await pair.rail.finish(said)
    lie = {"attempt": attempt.id, "transaction": "0x" + "22" * 32}
    with pytest.raises(ProtocolBroken, match="does not show"):
        await pair.rail.finish(said.model_copy(update={"verb": "settled", "body": lie}))
    assert (await pair.row(attempt)).state == "open"


async def test_a_silent_shop_keeps_nothing_beyond_its_time(pair: Pair) -> None:
    attempt = await pair.open()
    await pair.refuse(attempt)
    await pair.end_run()
    (message,) = await closing(pair)
    assert "locked until" in await pair.rail.insist(message)
    assert await pair.balances() == (MINTED - PRICE, 0, PRICE)
    pair.clock.skip(3601)
    assert "nothing was delivered in time" in await pair.rail.insist(message)
    assert await pair.balances() == (MINTED, 0, 0)
    assert (await pair.held(), await pair.spent()) == (0, 0)


@pytest.mark.parametrize("pair", [terms.NOBODY, ARBITER.address], indirect=True)
async def test_junk_that_was_submitted_goes_to_the_arbiter_or_is_counted(pair: Pair) -> None:
    """The payer refused it; what the shop gets all the same is counted as spent."""
    attempt = await pair.open()
    await pair.deliver(attempt, 700)
    await pair.refuse(attempt)
    await pair.end_run()
    pair.clock.skip(3600 - 600)
    await pair.book.watch()
    (message,) = await closing(pair)
    said = await pair.rail.insist(message)
    job = EscrowJob.read((await pair.row(attempt)).job)
    if job.quote.arbiter == terms.NOBODY:
        assert "nobody was named to decide" in said
        return
    assert said == "disputed; the arbiter decides"
    assert await pair.state(attempt) == terms.DISPUTED
    pair.clock.skip(7 * 86400 + 1)
    assert "the arbiter was silent" in await pair.rail.insist(message)
    assert await pair.balances() == (MINTED - PRICE // 2, PRICE // 2, 0)
    assert (await pair.held(), await pair.spent()) == (0, PRICE // 2)


# -- what is locked counts, whatever dies and whoever lies ----------------------------------------


class Ahead(Web3Chain):
    """A line on which somebody does something right before our bytes arrive."""

    before: Callable[[bytes], Awaitable[None]]

    async def send(self, raw: bytes) -> None:
        await self.before(raw)
        await super().send(raw)


def on(pair: Pair, line: Web3Chain, journal: Journal | None = None) -> EscrowRail:
    """Return the rail of another process of the same wallet, with a line of its own."""
    books = journal or pair.payer
    sender = Sender(books, line, PAYER, pair.network)
    return EscrowRail(books, line, PAYER, pair.network, sender)


async def quoted(pair: Pair, n: int = 0, held: int = PRICE) -> Attempt:
    """Hold for an attempt and take its quote; nothing is locked."""
    attempt = pair.attempt(n)
    await pair.payer.commit(lambda tx: pair.budget.hold(tx, "r1", pair.money(held), None))
    await pair.rail.finish(await pair.ask(attempt))
    return attempt


async def test_an_opening_that_somebody_else_brings_first_is_not_opened_again(pair: Pair) -> None:
    """Ours reverts then; a second quote would lock the price twice, and the first be claimed."""
    attempt = await quoted(pair)
    thief = Sender(pair.shop, pair.chain, ARBITER, pair.network)

    async def steal(raw: bytes) -> None:
        await thief.send("steal:1", pair.network.escrow, Call.of(raw).data)

    line = Ahead(pair.network)
    line.before = steal
    rail = on(pair, line)
    for _ in range(2):
        assert await rail.fund(pair.offer(), attempt.at_most, pair.wanted(attempt)) == []
    await line.close()
    (ours,) = await pair.payer.commit(lambda tx: tx.every(r.EvmTransaction, "escrow:"))
    assert (ours.final, ours.succeeded) == (True, False), "the fault was not reached"
    assert (await pair.row(attempt)).state == "open"
    assert await pair.opened() == 1
    assert await pair.balances() == (MINTED - PRICE, 0, PRICE)


async def test_what_is_locked_is_reserved_before_anything_else_happens(pair: Pair) -> None:
    """A process that dies right then leaves nothing that another provider could be paid from."""
    attempt = await quoted(pair)
    await pair.rail.fund(pair.offer(), attempt.at_most, pair.wanted(attempt))
    other = pair.attempt(1)
    await pair.rail.finish(await pair.ask(other))
    with pytest.raises(OverBudget) as over:
        await pair.rail.fund(pair.offer(), other.at_most, pair.wanted(other))
    assert over.value.limit == "hold"
    assert await pair.opened() == 1
    await pair.payer.commit(lambda tx: pair.budget.reserve(tx, attempt))  # it goes on with its own
    await pair.end_run()
    assert await pair.held() == PRICE
    (message,) = await closing(pair)
    answer = await pair.book.give_back(message.body)
    await pair.rail.finish(message.model_copy(update={"verb": "released", "body": answer}))
    assert (await pair.held(), await pair.spent()) == (0, 0)
    assert await pair.balances() == (MINTED, 0, 0)


async def test_two_processes_keep_a_providers_limit(pair: Pair) -> None:
    """What both could reserve a moment ago, only one may lock."""
    pair.budget = Budget(Allowance(per_provider=pair.money(PRICE + PRICE // 2)))
    first, second = on(pair, pair.chain), on(pair, pair.chain)
    attempts = [await quoted(pair, n) for n in range(2)]
    for attempt in attempts:

        def look(tx: Transaction, attempt: Attempt = attempt) -> None:
            pair.budget.reserve(tx, attempt)  # fits, as each of them sees it
            raise InsufficientFunds("undone")

        with pytest.raises(InsufficientFunds):
            await pair.payer.commit(look)
    await first.fund(pair.offer(), attempts[0].at_most, pair.wanted(attempts[0]))
    with pytest.raises(OverBudget) as over:
        await second.fund(pair.offer(), attempts[1].at_most, pair.wanted(attempts[1]))
    assert over.value.limit == "per_provider"
    assert await pair.opened() == 1


async def test_an_opening_that_came_too_late_frees_what_was_reserved(pair: Pair) -> None:
    attempt = await quoted(pair)
    line = Ahead(pair.network)

    async def dawdle(raw: bytes) -> None:
        pair.clock.skip(3600)

    line.before = dawdle
    rail = on(pair, line)
    with pytest.raises(SettlementFailed):
        await rail.fund(pair.offer(), attempt.at_most, pair.wanted(attempt))
    await line.close()
    await pair.end_run()
    assert await pair.held() == PRICE, "until it is sure"
    assert await closing(pair) == []
    assert (await pair.held(), await pair.spent()) == (0, 0)
    assert await pair.balances() == (MINTED, 0, 0)


async def test_what_was_opened_and_not_booked_is_found_by_closing(pair: Pair) -> None:
    """The process dies between sending and booking, and nothing is ever bought again."""
    attempt = await quoted(pair)
    landed = asyncio.Event()

    class Dying(Web3Chain):
        async def send(self, raw: bytes) -> None:
            await super().send(raw)
            landed.set()
            await asyncio.Event().wait()

    line = Dying(pair.network)
    dying = asyncio.create_task(
        on(pair, line).fund(pair.offer(), attempt.at_most, pair.wanted(attempt))
    )
    await asyncio.wait_for(landed.wait(), limit(10))
    dying.cancel()
    await asyncio.wait([dying])
    await line.close()
    assert (await pair.row(attempt)).state == "quoted"
    await pair.end_run()
    (message,) = await closing(pair)
    assert message.verb == "refund"
    answer = await pair.book.give_back(message.body)
    await pair.rail.finish(message.model_copy(update={"verb": "released", "body": answer}))
    await pair.rail._sender.recover()  # its own transaction is found final, and means nothing more
    assert await pair.rail.balance() == {}
    assert (await pair.held(), await pair.spent()) == (0, 0)
    assert await pair.balances() == (MINTED, 0, 0)


async def test_what_a_shop_took_by_time_is_found_on_the_chain_and_counted(pair: Pair) -> None:
    attempt = await pair.open()
    await pair.deliver(attempt, 700)
    await pair.refuse(attempt)
    await pair.end_run()
    for seconds in (3600 - 600, 3601):
        pair.clock.skip(seconds)
        await pair.book.watch()
    assert await pair.state(attempt) == terms.PAID
    (message,) = await closing(pair)
    assert "found on the chain" in await pair.rail.insist(message)
    assert (await pair.held(), await pair.spent()) == (0, PRICE)
    assert await closing(pair) == []


@pytest.mark.parametrize("resumed", [True, False])
async def test_what_was_opened_beyond_the_last_seal_is_not_opened_again(
    pair: Pair, tmp_path: Path, resumed: bool
) -> None:
    """After a restore the books know neither quote nor opening; the chain has both."""
    attempt = await pair.open()
    books = await Journal.open(tmp_path / "restored", PAYER.address)
    await books.commit(lambda tx: tx.append(e.WALLET, e.Restored(events=0)))
    await books.commit(lambda tx: pair.budget.hold(tx, "r1", attempt.at_most, None))
    rail = on(pair, pair.chain, books)
    if resumed:
        assert await rail.fund(pair.offer(), attempt.at_most, pair.wanted(attempt)) == []
        payment = await books.commit(lambda tx: rail.reserve(tx, attempt))
        assert payment.body == {"escrow": (await pair.row(attempt)).job}
    (message,) = await rail.close()
    assert (message.verb, message.body["attempt"]) == ("refund", attempt.id)
    answer = await pair.book.give_back(message.body)
    await rail.finish(message.model_copy(update={"verb": "released", "body": answer}))
    assert await pair.opened() == 1
    assert await pair.balances() == (MINTED, 0, 0)
    await books.close()


# -- payers that want work for nothing -------------------------------------------------------------


async def test_a_word_for_another_job_is_no_payment(pair: Pair) -> None:
    """Quoted twice and opened once: a word for the other would leave the shop with nothing."""
    other = EscrowJob.read((await pair.ask(pair.attempt())).body)
    pair.clock.skip(1)
    attempt = await pair.open()
    result = await pair.deliver(attempt, 700)
    accept = Accept(other.id(pair.network), 700, bytes.fromhex(result.digest))
    word = PAYER.sign_accept(pair.network.escrow_domain, accept).hex()
    body = {"attempt": attempt.id, "pay": 700, "result": result.digest, "accept": word}
    with pytest.raises(Refused, match="another way"):
        await pair.book.accept({**other.document(), **body})
    pair.clock.skip(3600 - 600)
    await pair.book.watch()
    assert await pair.state(attempt) == terms.SUBMITTED, "it still claims what was locked"


async def test_one_payer_that_cannot_be_claimed_from_keeps_nothing_from_the_next(
    pair: Pair,
) -> None:
    lost, good = await pair.open(0), await pair.open(1)
    for attempt in (lost, good):
        word = await pair.pay(attempt, await pair.deliver(attempt, 700))
        await pair.book.accept(word.body)
    first = min((lost, good), key=lambda one: one.id)
    job = EscrowJob.read((await pair.row(first)).job)
    data = job.call(f"accept({terms.QUOTE},uint128,bytes32)", PRICE, bytes(32))
    await pair.rail._sender.send("early:1", pair.network.escrow, data)  # the payer's word alone
    await pair.book.watch()
    assert await pair.balances() == (MINTED - PRICE - 700, PRICE + 700, 0)


async def test_what_was_given_back_meanwhile_is_not_begun(pair: Pair) -> None:
    """Asked for between a task's admission and its beginning, the word would cost the shop."""
    attempt = await pair.open()
    known = await pair.row(attempt)
    paid_by = await pair.book.admit({"escrow": known.job}, attempt.id, TASK, attempt.at_most)
    await pair.refuse(attempt)
    await pair.end_run()
    (message,) = await closing(pair)
    await pair.book.give_back(message.body)
    taken = e.JobTaken(
        attempt=attempt.id,
        task=TASK,
        payer=PAYER.address,
        channel=paid_by,
        at_most=attempt.at_most,
        escrow=known.job,
    )
    with pytest.raises(Refused, match="take nothing"):
        await pair.shop.commit(lambda tx: take(tx, taken, lambda _tx, _payer: None))


async def test_somebody_elses_quote_for_an_attempt_gives_up_nothing(pair: Pair) -> None:
    """Attempts stand in the open on the chain; whoever asks for a quote of one is not its payer."""
    attempt = await pair.open()
    body = {
        "attempt": attempt.id,
        "task": TASK,
        "payer": ARBITER.address,
        "arbiter": terms.NOBODY,
        "price": 1,
        "seconds": 1,
    }
    theirs = EscrowJob.read(pair.book.quote(body))
    nothing = Accept(theirs.id(pair.network), 0, bytes(32))
    proof = ARBITER.sign_accept(pair.network.escrow_domain, nothing).hex()
    before = len(await pair.shop.rows(e.NODE))
    with pytest.raises(Refused, match="no money is in escrow"):
        await pair.book.give_back({**theirs.document(), "attempt": attempt.id, "proof": proof})
    assert len(await pair.shop.rows(e.NODE)) == before, "a quote is free, and a journal is not"
    ours = {"escrow": (await pair.row(attempt)).job}
    await pair.book.admit(ours, attempt.id, TASK, attempt.at_most)


async def test_work_that_could_not_be_claimed_in_time_is_not_begun(pair: Pair) -> None:
    attempt = await pair.open()
    pair.clock.skip(3600 - 300)
    with pytest.raises(Refused, match="too little time"):
        ours = {"escrow": (await pair.row(attempt)).job}
        await pair.book.admit(ours, attempt.id, TASK, attempt.at_most)


async def test_nothing_is_paid_that_was_never_locked(pair: Pair) -> None:
    attempt = pair.attempt()
    result = Result((ANSWER,), {}, pair.money(5))
    with pytest.raises(SettlementFailed, match="no money is in escrow"):
        await pair.payer.commit(lambda tx: pair.rail.settle(tx, attempt, result))
    await pair.rail.finish(await pair.ask(attempt))
    with pytest.raises(SettlementFailed, match="no money is in escrow"):
        await pair.payer.commit(lambda tx: pair.rail.settle(tx, attempt, result))
    with pytest.raises(InsufficientFunds):
        await pair.payer.commit(lambda tx: pair.rail.reserve(tx, attempt))
