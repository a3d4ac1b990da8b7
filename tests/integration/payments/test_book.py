"""A provider's book of channels on a real chain: what it takes, and how a channel ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from support.chain_processes import KEYS
from support.delivery_channels import (
    SALT,
    TASK,
    Payee,
    body_of,
    deposit_call,
    ordered,
    payee_of,
)
from support.deployed_chain import open_deployed

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.rpc import RpcFront, rpc_app
from agentkit.embedded.chain.vm import CHAIN_ID
from agentkit.errors import ConfigError, RateLimited, Refused
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import UnsignedTransaction
from agentkit.keys.signer import KeySigner
from agentkit.market.batch_settlement import (
    DepositFields,
    DepositPayload,
    Drawing,
    Erc3009,
    SignedVoucher,
)
from agentkit.market.chain import SETTLEMENT, Network
from agentkit.market.seams import Transaction
from agentkit.money import Asset, Money
from agentkit.payments.balance import token_balance
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels import contract
from agentkit.payments.channels.book import VoucherBook, check_room
from agentkit.payments.channels.terms import CLOSE_DELAY, ChannelTerms

DEPLOYER, PAYER, PROVIDER, *_ = map(KeySigner, KEYS)
MINTED = 5000
ATTEMPT = "ab" * 32


@dataclass
class World:
    """A chain with a funded channel, and its payee's book."""

    chain: Chain
    network: Network
    client: Web3Chain
    journal: Journal
    payee: Payee
    terms: ChannelTerms

    @property
    def book(self) -> VoucherBook:
        return self.payee.book

    def send(self, who: KeySigner, to: str, data: bytes) -> None:
        address: Any = bytes.fromhex(who.address[2:])
        nonce = self.chain.state().get_nonce(address)
        wanted = UnsignedTransaction(CHAIN_ID, nonce, to, data, 400_000, 10**10, 0)
        self.chain.send(who.sign_tx(wanted)[1])

    def request(self) -> dict[str, Any]:
        """What the payer sends to have the channel closed."""
        return body_of(PAYER, self.terms, self.network)

    async def admit(self, body: dict[str, Any], at_most: Money) -> str:
        """Have the book look at a payment, with the payer's order unless it has another."""
        if "order" not in body and isinstance(body["channel"], str):
            body = ordered(PAYER, self.network, body, at_most, ATTEMPT)
        return await self.book.admit(body, ATTEMPT, TASK, at_most)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    rich = (DEPLOYER, PAYER, PROVIDER)
    chain, at = open_deployed(tmp_path / "chain.db", rich=rich, minted=MINTED)
    here = f"eip155:{CHAIN_ID}"
    async with TestServer(rpc_app(RpcFront(chain))) as server:
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
        journal = await Journal.open(tmp_path / "home", PROVIDER.address)
        window = Money(0, network.currency)
        payee = payee_of(journal, client, PROVIDER, network, window)
        terms = ChannelTerms(PAYER.address, PROVIDER.address, at.token, CLOSE_DELAY, SALT)
        world = World(chain, network, client, journal, payee, terms)
        world.send(DEPLOYER, SETTLEMENT, deposit_call(PAYER, terms, network, 1000))
        yield world
        await client.close()
        await journal.close()
    chain.close()


@pytest.mark.parametrize("claimed", [0, 300])
async def test_what_was_not_promised_goes_back_at_once(world: World, claimed: int) -> None:
    """Also when somebody brought a voucher to the chain that the book does not have."""
    channel = world.terms.id(world.network)
    if claimed:
        payment = body_of(PAYER, world.terms, world.network, claimed)
        await world.book.take(payment)
        await world.payee.claiming.claim_all()
        await world.journal.commit(lambda tx: tx.every(r.SoldChannel))
    for _ in range(2):  # asked again, it says the same
        answer = await world.book.close(world.request())
        assert answer["channel"] == channel
    on_chain = await contract.channel_on(world.client, bytes.fromhex(channel))
    assert (on_chain.balance, on_chain.total_claimed) == (claimed, claimed)
    await world.payee.claiming.watch()
    assert await token_balance(world.client, world.network, PAYER.address) == MINTED - claimed
    assert await token_balance(world.client, world.network, PROVIDER.address) == claimed


async def test_a_network_without_escrow_signs_no_quotes(world: World) -> None:
    with pytest.raises(ConfigError, match="escrow") as missing:
        _ = world.network.escrow_domain
    assert "chain.escrow" in str(missing.value.hint)
    there = world.network.model_copy(update={"escrow": PAYER.address})
    assert there.escrow_domain.contract == PAYER.address
    old = {k: v for k, v in world.network.model_dump(mode="json").items() if k != "escrow"}
    assert Network.model_validate(old) == world.network  # as a network of an older version says


def job(world: World, number: int, units: int) -> e.JobTaken:
    """Return a job that its payer would pay up to `units` for."""
    return e.JobTaken(
        attempt=f"{number:064x}",
        task="ab" * 32,
        payer=PAYER.address,
        channel=world.terms.id(world.network),
        at_most=Money(units, world.network.currency),
    )


async def append(world: World, *events: e.Event) -> None:
    def work(tx: Transaction) -> None:
        for event in events:
            tx.append(e.NODE, event)

    await world.journal.commit(work)


def promise(
    world: World, units: int, tasks: int, terms: ChannelTerms | None = None
) -> dict[str, Any]:
    """Return a payment with a voucher over `units` for `tasks`."""
    body = body_of(PAYER, terms or world.terms, world.network, units)
    return {**body, "tasks": tasks}


async def test_work_under_way_and_unpaid_deliveries_are_within_one_window(world: World) -> None:
    """Sixty tasks at once on one channel would else be done before the first is paid for."""
    some = Money(100, world.network.currency)
    await world.admit(world.request(), some)  # the window is 0: one at a time
    await append(world, job(world, 1, 100))
    with pytest.raises(RateLimited) as told:
        await world.admit(world.request(), some)
    assert told.value.retry_after > 0
    failed = e.JobEnded(attempt=f"{1:064x}", state="failed", reason="no")
    await append(world, failed)
    await world.admit(world.request(), some)  # what is not delivered is not owed

    delivered = e.JobEnded(attempt=f"{2:064x}", state="done", price=some)
    await append(world, job(world, 2, 100), delivered)
    with pytest.raises(RateLimited):
        await world.admit(world.request(), some)
    await world.admit(promise(world, 100, 1), some)


async def test_a_payers_channels_share_its_window(world: World) -> None:
    """Else a payer would open a further channel whenever one is full."""
    some = Money(100, world.network.currency)
    await world.admit(world.request(), some)
    await append(world, job(world, 1, 100))
    other = ChannelTerms(
        PAYER.address.lower(), PROVIDER.address, world.network.token, CLOSE_DELAY, SALT[:-2] + "6b"
    )
    world.send(DEPLOYER, SETTLEMENT, deposit_call(PAYER, other, world.network, 1000))
    world.terms = other
    with pytest.raises(RateLimited):
        await world.admit(world.request(), some)


async def test_a_window_is_remembered_by_the_next_process(world: World) -> None:
    some = Money(100, world.network.currency)
    await world.admit(world.request(), some)
    await append(world, job(world, 1, 100))
    window = Money(0, world.network.currency)
    world.payee = payee_of(world.journal, world.client, PROVIDER, world.network, window)
    with pytest.raises(RateLimited):
        await world.admit(world.request(), some)


async def test_a_task_dearer_than_the_window_can_be_bought_alone(world: World) -> None:
    await world.admit(world.request(), Money(1000, world.network.currency))


async def test_whoever_is_not_the_payer_gets_no_work_on_a_channel(world: World) -> None:
    """What a channel is stands on the chain for everybody to read."""
    one, two = (Money(units, world.network.currency) for units in (1, 2))
    forged = ordered(DEPLOYER, world.network, world.request(), one, ATTEMPT)["order"]
    cheaper = ordered(PAYER, world.network, world.request(), one, ATTEMPT)["order"]
    another = ordered(PAYER, world.network, world.request(), two, "aa" * 32)["order"]
    await world.admit(world.request(), two)
    for order in ("", forged, cheaper, another):
        with pytest.raises(Refused, match="payer"):
            await world.admit({**world.request(), "order": order}, two)
    for proof in ("", forged):
        for ask in (world.book.best, world.book.close, world.book.deposit):
            with pytest.raises(Refused, match="payer"):
                await ask({**world.request(), "proof": proof})


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": 2**64},
        {"tasks": -1},
        {"cumulative": 2**128},
        {"cumulative": True},
        {"cumulative": 5.0},
        {"cumulative": "5"},
        {"close_delay": CLOSE_DELAY - 1},
        {"close_delay": 30 * 86400 + 1},
        {"close_delay": 2**40},
        {"salt": "5A" * 32},
        {"salt": "5a" * 33},
        {"order": "ab"},
        {"payer": ""},
        {"payer": PAYER.address[2:]},
        {"payer": "0x" + "00" * 52},
        {"token": "0x"},
        {"root": "ab"},
        {"root": " " + "ab" * 32},
        {"voucher": "ab"},
        {"voucher": 5},
        {"channel": "AB" * 32},
        {"channel": None},
    ],
)
async def test_what_the_contract_would_not_take_is_no_payment(
    world: World, changes: dict[str, Any]
) -> None:
    """Nor is it looked up, or shown as a payer's: each field has one form."""
    with pytest.raises(Refused, match="not a valid channel payment"):
        await world.admit({**promise(world, 5, 1), **changes}, Money(1, world.network.currency))
    assert await world.book.books() == []


async def test_the_largest_voucher_that_is_taken_can_be_claimed(world: World) -> None:
    body = promise(world, 400, 2**64 - 1)
    await world.book.take(body)
    with pytest.raises(Refused, match="tasks"):
        await world.book.take(promise(world, 500, 2**64))
    await world.book.close(body)
    await world.payee.claiming.watch()
    assert await token_balance(world.client, world.network, PROVIDER.address) == 400


async def test_a_channel_is_not_closed_while_work_is_under_way_on_it(world: World) -> None:
    """Its payer could else have the money back, and the work as well."""
    some = Money(100, world.network.currency)
    await world.admit(world.request(), some)
    await append(world, job(world, 1, 100))
    with pytest.raises(Refused, match="under way"):
        await world.book.close(world.request())
    await append(world, e.JobEnded(attempt=f"{1:064x}", state="failed", reason="no"))
    await world.admit(world.request(), some)  # the refusal has ended nothing
    await world.book.close(world.request())
    for late in (world.admit(world.request(), some), world.book.take(promise(world, 5, 1))):
        with pytest.raises(Refused, match="clos"):
            await late


async def test_of_two_closes_at_once_no_refund_is_left_over(world: World) -> None:
    """One that is written down after it was done is ordered again at each look, for ever."""
    books, closes = world.payee.book, []
    at_refund, read = asyncio.Event(), world.payee.book._mirror.read

    async def slow(channel: bytes, config: Any) -> r.SoldChannel:
        sold = await read(channel, config)
        if not closes:
            closes.append(sold)
            await at_refund.wait()
        return sold

    await books.take(promise(world, 5, 1))
    books._mirror.read = slow  # type: ignore[method-assign]
    late = asyncio.create_task(books.close(world.request()))
    while not closes:
        await asyncio.sleep(0.01)
    await books.close(world.request())
    at_refund.set()
    with pytest.raises(RateLimited):
        await late
    (sold,) = await world.journal.commit(lambda tx: tx.every(r.SoldChannel))
    assert (sold.refunding, sold.balance) == (0, 5)


async def test_a_job_that_comes_while_its_channel_closes_is_not_begun(world: World) -> None:
    """It was admitted before, and is recorded after: the transaction looks again."""
    some = Money(100, world.network.currency)
    channel = await world.admit(world.request(), some)
    await append(world, e.CloseSeen(channel=channel))
    with pytest.raises(Refused, match="closing"):
        await world.journal.commit(lambda tx: check_room(tx, channel, some))


async def test_a_payee_that_lost_its_books_counts_what_it_was_paid_as_delivered(
    world: World,
) -> None:
    paid = promise(world, 900, 9)
    with pytest.raises(Refused, match="1000 units and 1400 are needed"):
        await world.admit(paid, Money(500, world.network.currency))
    await world.admit(paid, Money(100, world.network.currency))


async def test_a_deposit_into_another_channel_is_not_drawn(world: World) -> None:
    """The message is the payer's own, and what it brings might be anybody's."""
    for deposit in (None, {}, {"type": "voucher"}):
        with pytest.raises(Refused, match="cannot be read"):
            await world.book.deposit({**world.request(), "deposit": deposit})


def bad_deposit(terms: ChannelTerms, network: Network) -> dict[str, Any]:
    """Return a deposit that cannot be drawn: nobody signed it."""
    signature = "0x" + "1b" * 65
    channel = "0x" + terms.id(network)
    drawing = Erc3009(valid_after="0", valid_before=str(2**40), salt="1", signature=signature)
    payload = DepositPayload(
        channel_config=terms.wire,
        voucher=SignedVoucher(channel_id=channel, max_claimable_amount="2", signature=signature),
        deposit=DepositFields(amount="5", authorization=Drawing(erc3009_authorization=drawing)),
    )
    return payload.document()


async def test_what_is_refused_fills_no_journal(world: World) -> None:
    """Whoever has a cent in a channel could else fill its payee's disk for nothing."""
    await world.book.take(promise(world, 1, 1))
    before = len(await world.journal.rows(e.NODE))
    deposit = bad_deposit(world.terms, world.network)
    for _ in range(3):
        with pytest.raises(Refused, match="needed"):
            await world.admit(promise(world, 1, 1), Money(5000, world.network.currency))
        with pytest.raises(Refused, match="not drawn"):
            await world.book.deposit({**world.request(), "deposit": deposit})
    assert len(await world.journal.rows(e.NODE)) == before


async def test_of_a_channel_of_a_strangers_own_making_no_books_are_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs nothing to make one up, and to go through all jobs of a node is work."""
    made_up = ChannelTerms(
        PAYER.address, PROVIDER.address, world.network.token, CLOSE_DELAY, SALT[:-2] + "77"
    )

    async def read(channel: str) -> list[str]:
        raise AssertionError("all jobs were read")

    monkeypatch.setattr(world.book, "_delivered_on", read)
    answer = await world.book.best(body_of(PAYER, made_up, world.network))
    assert (answer["cumulative"], answer["attempts"]) == (0, [])
