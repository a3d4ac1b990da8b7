"""A provider's book of channels on a real chain: what it takes, and how a channel ends."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from support.chain_processes import KEYS
from support.deployed_chain import open_deployed

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.rpc import RpcFront, rpc_app
from agentkit.embedded.chain.vm import CHAIN_ID
from agentkit.errors import ConfigError, RateLimited, Refused
from agentkit.journal import events as e
from agentkit.journal.journal import Journal
from agentkit.keys.messages import UnsignedTransaction, Voucher
from agentkit.keys.signer import KeySigner
from agentkit.market.chain import Network
from agentkit.market.seams import Transaction
from agentkit.money import Asset, Money
from agentkit.payments import abi
from agentkit.payments.balance import token_balance
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.book import VoucherBook
from agentkit.payments.channels.terms import (
    CLOSE_DELAY,
    CONFIG,
    ChannelTerms,
    deposit_of,
)

DEPLOYER, PAYER, PROVIDER, *_ = map(KeySigner, KEYS)
MINTED = 5000
CLAIM = f"claim({CONFIG},(uint128,uint64,bytes32),uint8,bytes32,bytes32)"


@dataclass
class World:
    """A chain with a funded channel, and its payee's book."""

    chain: Chain
    network: Network
    client: Web3Chain
    journal: Journal
    book: VoucherBook
    terms: ChannelTerms

    def send(self, who: KeySigner, to: str, data: bytes) -> None:
        address: Any = bytes.fromhex(who.address[2:])
        nonce = self.chain.state().get_nonce(address)
        wanted = UnsignedTransaction(CHAIN_ID, nonce, to, data, 400_000, 10**10, 0)
        self.chain.send(who.sign_tx(wanted)[1])

    def request(self) -> dict[str, Any]:
        """What the payer sends to have the channel closed."""
        channel = self.terms.id(self.network)
        proof = Voucher(bytes.fromhex(channel), 0, 0)
        return {
            "channel": channel,
            "payer": PAYER.address,
            "token": self.network.token,
            "close_delay": CLOSE_DELAY,
            "salt": self.terms.salt,
            "cumulative": 0,
            "tasks": 0,
            "voucher": "",
            "proof": PAYER.sign_voucher(self.network.channels_domain, proof).hex(),
        }


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
        book = VoucherBook(journal, client, PROVIDER, network, window)
        terms = ChannelTerms(PAYER.address, PROVIDER.address, at.token, CLOSE_DELAY, "5a" * 32)
        world = World(chain, network, client, journal, book, terms)
        world.send(PAYER, at.token, abi.encode("approve(address,uint256)", at.channels, MINTED))
        fund = abi.encode(f"fund({CONFIG},uint128)", *terms.words(), 1000)
        world.send(PAYER, at.channels, fund)
        yield world
        await client.close()
        await journal.close()
    chain.close()


@pytest.mark.parametrize("claimed", [0, 300])
async def test_what_was_not_promised_goes_back_at_once(world: World, claimed: int) -> None:
    """Also when somebody brought a voucher to the chain that the book does not have."""
    channel = world.terms.id(world.network)
    if claimed:
        voucher = Voucher(bytes.fromhex(channel), claimed, 1)
        signature = PAYER.sign_voucher(world.network.channels_domain, voucher)
        vrs = (signature[64], signature[:32], signature[32:64])
        data = abi.encode(CLAIM, *world.terms.words(), claimed, 1, bytes(32), *vrs)
        world.send(DEPLOYER, world.network.channels, data)
    for _ in range(2):  # asked again, it says the same
        answer = await world.book.close(world.request())
        assert answer["channel"] == channel
    assert await deposit_of(world.client, world.network, channel) == (claimed, claimed)
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
    terms = terms or world.terms
    name = bytes.fromhex(terms.id(world.network))
    signature = PAYER.sign_voucher(world.network.channels_domain, Voucher(name, units, tasks))
    signed = {"cumulative": units, "tasks": tasks, "root": "00" * 32, "voucher": signature.hex()}
    return {**world.request(), **signed}


async def test_work_under_way_and_unpaid_deliveries_are_within_one_window(world: World) -> None:
    """Sixty tasks at once on one channel would else be done before the first is paid for."""
    some = Money(100, world.network.currency)
    await world.book.admit(world.request(), some)  # the window is 0: one at a time
    await append(world, job(world, 1, 100))
    with pytest.raises(RateLimited) as told:
        await world.book.admit(world.request(), some)
    assert told.value.retry_after > 0
    failed = e.JobEnded(attempt=f"{1:064x}", state="failed", reason="no")
    await append(world, failed)
    await world.book.admit(world.request(), some)  # what is not delivered is not owed

    delivered = e.JobEnded(attempt=f"{2:064x}", state="done", price=some)
    await append(world, job(world, 2, 100), delivered)
    with pytest.raises(RateLimited):
        await world.book.admit(world.request(), some)
    await world.book.admit(promise(world, 100, 1), some)


async def test_a_payers_channels_share_its_window(world: World) -> None:
    """Else a payer would open a further channel whenever one is full."""
    some = Money(100, world.network.currency)
    await world.book.admit(world.request(), some)
    await append(world, job(world, 1, 100))
    other = ChannelTerms(
        PAYER.address.lower(), PROVIDER.address, world.network.token, CLOSE_DELAY, "6b" * 32
    )
    fund = abi.encode(f"fund({CONFIG},uint128)", *other.words(), 1000)
    world.send(PAYER, world.network.channels, fund)
    world.terms = other
    with pytest.raises(RateLimited):
        await world.book.admit(world.request(), some)


async def test_a_window_is_remembered_by_the_next_process(world: World) -> None:
    some = Money(100, world.network.currency)
    await world.book.admit(world.request(), some)
    await append(world, job(world, 1, 100))
    window = Money(0, world.network.currency)
    book = VoucherBook(world.journal, world.client, PROVIDER, world.network, window)
    with pytest.raises(RateLimited):
        await book.admit(world.request(), some)


async def test_a_task_dearer_than_the_window_can_be_bought_alone(world: World) -> None:
    await world.book.admit(world.request(), Money(1000, world.network.currency))


async def test_whoever_is_not_the_payer_gets_no_work_on_a_channel(world: World) -> None:
    """What a channel is stands on the chain for everybody to read."""
    nothing = Voucher(bytes.fromhex(world.terms.id(world.network)), 0, 0)
    forged = DEPLOYER.sign_voucher(world.network.channels_domain, nothing).hex()
    await world.book.admit(world.request(), Money(1, world.network.currency))
    for proof in ("", forged):
        with pytest.raises(Refused, match="payer"):
            await world.book.admit(
                {**world.request(), "proof": proof}, Money(1, world.network.currency)
            )


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
        await world.book.admit(
            {**promise(world, 5, 1), **changes}, Money(1, world.network.currency)
        )
    assert await world.book.books() == []


async def test_the_largest_voucher_that_is_taken_can_be_claimed(world: World) -> None:
    """2^64 tasks fit no uint64: such a voucher would never be paid, whatever it promises."""
    body = promise(world, 400, 2**64 - 1)
    await world.book.take(body)
    with pytest.raises(Refused, match="tasks"):
        await world.book.take(promise(world, 500, 2**64))
    await world.book.close(body)
    assert await token_balance(world.client, world.network, PROVIDER.address) == 400
