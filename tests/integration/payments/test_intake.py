"""Vouchers that come to a provider at the same moment, good ones and others."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.chain_processes import KEYS, Node
from support.delivery_channels import (
    SALT,
    body_of,
    deposit_call,
    payee_of,
    signed_voucher,
)
from support.x402_market import OTHER, SHOP, chain_of, world_on

from agentkit.errors import Refused
from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.keys.signer import KeySigner
from agentkit.market.chain import SETTLEMENT, Network
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.book import VoucherBook
from agentkit.payments.channels.terms import CLOSE_DELAY, ChannelTerms
from agentkit.payments.sender import Sender

DEPOSIT = 1000
STRANGER = KeySigner(KEYS[4])


@dataclass
class Bench:
    """A channel that holds DEPOSIT, and the book of whom it is with."""

    network: Network
    terms: ChannelTerms
    book: VoucherBook
    journal: Journal

    def body(self, cumulative: int, signer: KeySigner = OTHER) -> dict[str, Any]:
        body = body_of(OTHER, self.terms, self.network, cumulative)
        signed = signed_voucher(signer, self.network, body["channel"], cumulative)
        return {**body, "voucher": signed}

    async def told(self, body: dict[str, Any]) -> int | None:
        """Hand a voucher over; returns what is booked then, None when it is refused."""
        try:
            return (await self.book.take(body)).cumulative
        except Refused:
            return None

    async def written(self) -> list[int]:
        """The totals of the vouchers that were written, in order."""
        rows = [row.event() for row in await self.journal.rows(e.NODE)]
        return [event.cumulative.units for event in rows if isinstance(event, e.VoucherTaken)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: Any) -> Iterator[Node]:
    with chain_of("embedded", tmp_path_factory.mktemp("chain")) as running:
        yield running


@pytest.fixture
async def bench(node: Node, tmp_path: Path) -> AsyncIterator[Bench]:
    async with world_on(node) as world:
        network = world.network
        await world.mint(OTHER.address, DEPOSIT)
        salt = SALT[:16] + secrets.token_hex(24)  # the chain is one for all tests
        terms = ChannelTerms(OTHER.address, SHOP.address, network.token, CLOSE_DELAY, salt)
        await fund(tmp_path, network, terms)
        journal = await Journal.open(tmp_path / "shop", SHOP.address)
        chain = Web3Chain(network)
        payee = payee_of(journal, chain, SHOP, network, network.currency.zero())
        yield Bench(network, terms, payee.book, journal)
        await chain.close()
        await journal.close()


async def fund(folder: Path, network: Network, terms: ChannelTerms) -> None:
    journal, chain = await Journal.open(folder / "payer", OTHER.address), Web3Chain(network)
    sender = Sender(journal, chain, OTHER, network)
    await sender.send("fund:1", SETTLEMENT, deposit_call(OTHER, terms, network, DEPOSIT))
    await chain.close()
    await journal.close()


async def test_each_is_told_of_at_least_its_own_and_the_best_is_kept(bench: Bench) -> None:
    totals = random.Random(7).sample(range(1, DEPOSIT), 100)
    told = await asyncio.gather(*(bench.told(bench.body(total)) for total in totals))
    assert all(known and known >= total for known, total in zip(told, totals, strict=True))
    written = await bench.written()
    assert written == sorted(written)
    assert written[-1] == max(totals)
    assert len(written) < 10, "they were written one by one"
    (booked,) = await bench.book.books()
    assert (booked.cumulative, booked.signature) == (
        max(totals),
        bench.body(max(totals))["voucher"],
    )


@pytest.mark.parametrize("bad", ["forged", "above the deposit", "garbage"])
async def test_one_that_is_no_good_keeps_no_other_out(bench: Bench, bad: str) -> None:
    """It is the highest of those that wait, so it is looked at for all of them."""
    body = {
        "forged": bench.body(DEPOSIT - 1, STRANGER),
        "above the deposit": bench.body(DEPOSIT + 1),
        "garbage": {**bench.body(DEPOSIT - 1), "voucher": "zz"},
    }[bad]
    await bench.told(bench.body(1))
    good = range(2, 40)
    told = await asyncio.gather(
        *(bench.told(bench.body(n)) for n in good), *(bench.told(body) for _ in range(3))
    )
    assert list(told[-3:]) == [None] * 3
    assert all(known and known >= n for known, n in zip(told, good, strict=False))
    assert max(await bench.written()) == 39


async def test_unsigned_it_promises_nothing_and_takes_nothing_back(bench: Bench) -> None:
    assert await bench.told({**bench.body(500), "voucher": ""}) == 0
    assert await bench.told(bench.body(5)) == 5
    assert await bench.told({**bench.body(900), "voucher": ""}) == 5
    assert await bench.written() == [0, 5]


async def test_after_the_end_all_are_refused(bench: Bench) -> None:
    assert await bench.told(bench.body(5)) == 5
    channel = bench.terms.id(bench.network)
    settled = e.ChannelSettled(channel=channel, claimed=bench.network.currency.zero())
    await bench.journal.commit(lambda tx: tx.append(e.NODE, settled))
    told = await asyncio.gather(*(bench.told(bench.body(n)) for n in (1, 5, 6, 7)))
    assert list(told) == [None] * 4
    assert all(booked.settled for booked in await bench.book.books())
