"""With its key alone a wallet finds the channels that it filled, and takes the rest back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.chain_clock import ARBITER, MINTED, PAYER, SHOP, Clock, clocked
from support.delivery_channels import SALT, body_of, deposit_call, payee_of

from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.market.chain import SETTLEMENT, Network
from agentkit.money import Money
from agentkit.payments import abi
from agentkit.payments.balance import token_balance
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels import contract, recovery
from agentkit.payments.channels.lanes import LaneRail
from agentkit.payments.channels.recovery import ChannelRecovery
from agentkit.payments.channels.terms import CLOSE_DELAY, ChannelTerms
from agentkit.payments.sender import Sender

DEPOSIT, PAID = 1000, 300


@dataclass
class Lost:
    """A wallet whose books are empty, on a chain where it once filled channels."""

    network: Network
    chain: Web3Chain
    journal: Journal
    clock: Clock
    rail: LaneRail
    folder: Path

    async def put(self, call: bytes, name: str, by: KeySigner = ARBITER) -> None:
        """Have somebody else put a call on the chain, as facilitators do."""
        journal = await Journal.open(self.folder / name, by.address)
        await Sender(journal, self.chain, by, self.network).send(f"{name}:1", SETTLEMENT, call)
        await journal.close()

    def terms(self, last: str, payee: KeySigner = SHOP) -> ChannelTerms:
        token = self.network.token
        return ChannelTerms(PAYER.address, payee.address, token, CLOSE_DELAY, SALT[:-2] + last)

    async def search(self, first: int = 0) -> recovery.Recovered:
        found = ChannelRecovery(self.journal, self.chain, self.network, PAYER.address)
        return await found.search(first)

    async def owned(self) -> int:
        return await token_balance(self.chain, self.network, PAYER.address)


@pytest.fixture
async def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lost]:
    clock = Clock(monkeypatch)
    async with clocked(tmp_path, clock) as network:
        chain = Web3Chain(network)
        journal = await Journal.open(tmp_path / "new", PAYER.address)
        sender = Sender(journal, chain, PAYER, network)
        rail = LaneRail(journal, chain, PAYER, network, sender)
        yield Lost(network, chain, journal, clock, rail, tmp_path)
        await chain.close()
        await journal.close()


async def test_what_is_left_in_forgotten_channels_comes_back(
    lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "BLOCKS", 2)  # more than one question has to be asked
    first, second = lost.terms("01"), lost.terms("02", payee=ARBITER)
    for name, terms in (("one", first), ("two", second)):
        await lost.put(deposit_call(PAYER, terms, lost.network, DEPOSIT), name)
    books = await Journal.open(lost.folder / "shop", SHOP.address)
    payee = payee_of(books, lost.chain, SHOP, lost.network, Money(0, lost.network.currency))
    await payee.book.take(body_of(PAYER, first, lost.network, PAID))
    await payee.claiming.claim_all()
    assert await lost.owned() == MINTED - 2 * DEPOSIT

    found = await lost.search()
    assert {payee: left.units for payee, left in found.left.items()} == {
        SHOP.address: DEPOSIT - PAID,
        ARBITER.address: DEPOSIT,
    }
    assert (await lost.search()).left == {}, "found again, it is not booked again"
    messages = await lost.rail.close()
    assert len(messages) == 2
    for message in messages:  # nobody knows the payees' addresses on the web any more
        assert "comes back" in await lost.rail.insist(message)
    lost.clock.skip(CLOSE_DELAY + 1)
    assert [await lost.rail.insist(message) for message in messages] == ["closed"] * 2
    assert await lost.owned() == MINTED - PAID
    await books.close()


async def test_nothing_is_bought_over_what_was_found(lost: Lost) -> None:
    await lost.put(deposit_call(PAYER, lost.terms("01"), lost.network, DEPOSIT), "one")
    await lost.search()
    (lane,) = await lost.journal.commit(lambda tx: tx.every(r.Lane))
    assert not lane.is_free


async def test_blocks_before_the_first_one_are_not_searched(lost: Lost) -> None:
    await lost.put(deposit_call(PAYER, lost.terms("01"), lost.network, DEPOSIT), "one")
    assert (await lost.search(await lost.chain.head() + 1)).left == {}


async def test_another_payers_deposits_are_not_taken_for_ours(lost: Lost) -> None:
    """A call that moved our tokens may name terms of anybody; only ours are booked."""
    move = abi.encode("transfer(address,uint256)", recovery.ERC3009_COLLECTOR, 5)
    journal = await Journal.open(lost.folder / "self", PAYER.address)
    sender = Sender(journal, lost.chain, PAYER, lost.network)
    await sender.send("move:1", lost.network.token, move)
    await journal.close()
    found = await lost.search()
    assert (found.left, found.unread) == ({}, 1)


async def test_a_deposit_that_was_drawn_under_another_name_is_told_as_not_found(
    lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who draws it may do so by a contract, in a call that names a channel that nobody filled."""
    real, decoy = lost.terms("01"), lost.terms("02")
    await lost.put(deposit_call(PAYER, real, lost.network, DEPOSIT), "one")

    async def another(transaction: str) -> bytes:
        return deposit_call(PAYER, decoy, lost.network, DEPOSIT)

    monkeypatch.setattr(lost.chain, "data_of", another)
    found = await lost.search()
    assert (found.left, found.unread) == ({}, 1)


@pytest.mark.parametrize("data", [b"", b"\x00" * 4, b"\xff" * 400])
def test_other_calls_are_not_read_as_deposits(data: bytes) -> None:
    assert recovery._config_in(data) is None


def test_a_deposits_terms_are_read_from_its_call() -> None:
    terms = ChannelTerms(PAYER.address, SHOP.address, ARBITER.address, CLOSE_DELAY, SALT)
    call = contract.deposit_call(terms.config, 5, recovery.ERC3009_COLLECTOR, b"x")
    assert contract.config_in(call) == terms.config
