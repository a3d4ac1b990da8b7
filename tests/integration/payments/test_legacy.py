"""Channels that an earlier version left open in `AgentChannels`: every unit comes back."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import zstandard
from aiohttp.test_utils import TestServer
from support.chain_clock import Clock
from support.golden_files import HOMES

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import deploy
from agentkit.embedded.chain.rpc import RpcFront, rpc_app
from agentkit.embedded.chain.vm import CHAIN_ID
from agentkit.errors import InsufficientFunds, Refused
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys import keystore
from agentkit.keys.messages import address_word, keccak, word
from agentkit.keys.signer import KeySigner
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt
from agentkit.market.chain import Network
from agentkit.market.offer import Offer
from agentkit.market.seams import Wanted
from agentkit.money import Asset, Money
from agentkit.payments.balance import token_balance
from agentkit.payments.budget import Budget
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.rail import ChannelRail
from agentkit.payments.legacy import LegacyBook, LegacyChannels
from agentkit.payments.sender import Sender
from agentkit.serve.payment_books import PaymentBooks

PROMISED, DEPOSITED = 45, 74


@dataclass
class Left:
    """What an earlier version left: its chain, a payer's books and a payee's."""

    network: Network
    client: Web3Chain
    rail: ChannelRail
    payer: Journal
    payee: Journal
    book: LegacyBook
    wallet: int
    payee_key: KeySigner

    async def channel(self) -> r.Channel:
        (row,) = await self.payer.commit(lambda tx: tx.every(r.Channel))
        return row

    async def balances(self) -> tuple[int, int, int]:
        row = await self.channel()
        who = (row.payer, row.payee, self.network.channels)
        payer, payee, held = [await token_balance(self.client, self.network, one) for one in who]
        return payer - self.wallet, payee, held


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    packed = (HOMES / "open-channels.tar.zst").read_bytes()
    content = zstandard.ZstdDecompressor().decompress(packed, max_output_size=1 << 26)
    with tarfile.open(fileobj=BytesIO(content)) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
async def left(folder: Path, clock: Clock) -> AsyncIterator[Left]:
    figures = json.loads((folder / "figures.json").read_text())
    keys = folder / "network" / "keys"
    payer, payee = (
        keystore.unlock(keys / f"{name}.json", real=False) for name in ("agent", "thrifty")
    )
    chain = Chain.open(folder / "network" / "chain.db", rich={}, clock=lambda: int(clock.now()))
    secret = bytes.fromhex(keystore.test_secret(keys / "deployer.json"))
    at = deploy(chain, secret, {})
    async with TestServer(rpc_app(RpcFront(chain))) as server:
        here = f"eip155:{CHAIN_ID}"
        network = Network(
            name="test",
            chain_id=CHAIN_ID,
            rpc=str(server.make_url("/")),
            currency=Asset.named("USDC").bind(here, f"erc20:{at.token}"),
            coin=Asset.named("ETH").bind(here, "slip44:60"),
            token=at.token,
            token_name="USD Coin",
            token_version="1",
            channels=at.channels,
            test=True,
        )
        client = Web3Chain(network)
        mine = await Journal.open(folder / "home" / payer.address.lower(), payer.address)
        theirs = await Journal.open(folder / "network" / "nodes" / "thrifty", payee.address)
        parts: Any = (mine, client, payer, network, Sender(mine, client, payer, network))
        rail = ChannelRail(*parts, earlier=LegacyChannels(*parts))
        book = LegacyBook(theirs, client, payee, network)
        yield Left(network, client, rail, mine, theirs, book, figures["wallet"], payee)
        await client.close()
        await mine.close()
        await theirs.close()
    chain.close()


async def test_the_payee_is_asked_and_pays_out_what_it_was_not_promised(left: Left) -> None:
    assert (await left.channel()).scheme == ""
    (message,) = await left.rail.close()
    unused: Any = None
    books = PaymentBooks(unused, None, left.book)
    for _ in range(2):  # asked again, it is the same close
        answer = await books.take(message)
        await left.rail.finish(answer)
    assert await left.balances() == (DEPOSITED - PROMISED, PROMISED, 0)
    assert not (await left.channel()).open
    (booked,) = await left.payee.commit(lambda tx: tx.every(r.BookedChannel))
    assert booked.settled
    assert await left.rail.balance() == {}


async def test_from_a_payee_that_is_silent_all_comes_back_in_time(left: Left, clock: Clock) -> None:
    (message,) = await left.rail.close()
    assert "from" in await left.rail.insist(message)
    clock.skip(3700)
    assert await left.rail.insist(message) == "closed"
    assert await left.balances() == (DEPOSITED, 0, 0)


async def test_a_payee_that_is_there_claims_before_the_end(left: Left, clock: Clock) -> None:
    (message,) = await left.rail.close()
    await left.rail.insist(message)
    await left.book.watch()
    clock.skip(3700)
    assert await left.rail.insist(message) == "closed"
    assert await left.balances() == (DEPOSITED - PROMISED, PROMISED, 0)


async def test_a_payee_that_lost_its_books_takes_the_voucher_that_comes_along(
    left: Left, tmp_path: Path
) -> None:
    (message,) = await left.rail.close()
    empty = await Journal.open(tmp_path / "empty", left.payee_key.address)
    book = LegacyBook(empty, left.client, left.payee_key, left.network)
    await book.close(message.body)
    assert await left.balances() == (DEPOSITED - PROMISED, PROMISED, 0)
    await empty.close()


async def test_nothing_is_bought_over_such_a_channel(left: Left) -> None:
    """What it holds beyond its voucher pays for nothing: a new channel is opened."""
    row = await left.channel()
    offer = Offer(
        provider=row.provider,
        provider_node=row.provider_node,
        node="n",
        on="x",
        price=Money(1, left.network.currency),
        at_most=Money(1, left.network.currency),
        eta=1,
        expires=time.time() + 600,
        rail="channel",
        pays="on_delivery",
        payee=row.payee,
        rates={},
    )
    attempt = Attempt.at(
        "ab" * 32, 0, offer, run="r1", item=None, task="cd" * 32, at_most=offer.at_most
    )
    with pytest.raises(InsufficientFunds):
        await left.payer.commit(lambda tx: left.rail.reserve(tx, attempt))
    wanted = Wanted(attempt, lambda tx: None)
    budget = Budget(Allowance())
    await left.payer.commit(lambda tx: budget.hold(tx, "r1", offer.at_most, None))
    (message,) = await left.rail.fund(offer, offer.at_most, wanted)
    assert message.verb == "deposit"
    assert message.body["channel"] != row.channel


async def test_only_the_payer_may_ask(left: Left) -> None:
    (message,) = await left.rail.close()
    for changes in ({"proof": ""}, {"proof": message.body["voucher"]}, {"cumulative": 0}):
        body = {**message.body, **changes}
        if changes == {"cumulative": 0}:
            assert left.book.knows(body)
            continue
        with pytest.raises(Refused, match="payer"):
            await left.book.close(body)
    assert not left.book.knows({**message.body, "salt": "00" * 32})


async def test_a_channel_in_a_strangers_own_token_is_none_of_the_payees(left: Left) -> None:
    """To close it the payee would call that token, and pay for whatever gas it burns."""
    (message,) = await left.rail.close()
    address = "0x" + "77" * 20
    terms = (message.body["payer"], message.body["payer"], left.payee_key.address, address)
    words = [*map(address_word, terms), word(message.body["close_delay"])]
    place = word(CHAIN_ID) + address_word(left.network.channels)
    channel = keccak(place + b"".join(words) + bytes.fromhex(message.body["salt"]))
    body = {**message.body, "token": address, "channel": channel.hex()}
    assert not left.book.knows(body)
    assert left.book.knows(message.body)
    here = left.network.model_copy(update={"channels": ""})
    elsewhere = LegacyBook(left.payee, left.client, left.payee_key, here)
    assert not elsewhere.knows(message.body)
