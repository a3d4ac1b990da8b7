"""A provider that ends a channel on which it was promised nothing, on a real chain."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from conformance.chains import KEYS, WEALTH

from agentkit.embedded.chain.chain import Chain
from agentkit.embedded.chain.genesis import deploy
from agentkit.embedded.chain.rpc import RpcFront, rpc_app
from agentkit.embedded.chain.vm import CHAIN_ID
from agentkit.errors import ConfigError
from agentkit.journal.journal import Journal
from agentkit.keys.messages import Transaction, Voucher
from agentkit.keys.signer import KeySigner
from agentkit.market.chain import Network
from agentkit.money import Asset, Money
from agentkit.payments import abi
from agentkit.payments.chain import Web3Chain
from agentkit.payments.channels.book import VoucherBook
from agentkit.payments.channels.terms import CLOSE_DELAY, CONFIG, Terms, deposit_of, token_balance

DEPLOYER, PAYER, PROVIDER, *_ = map(KeySigner, KEYS)
MINTED = 5000
CLAIM = f"claim({CONFIG},(uint128,uint64,bytes32),uint8,bytes32,bytes32)"


@dataclass
class World:
    """A chain with a funded channel, and its payee's book."""

    chain: Chain
    network: Network
    client: Web3Chain
    book: VoucherBook
    terms: Terms

    def send(self, who: KeySigner, to: str, data: bytes) -> None:
        address: Any = bytes.fromhex(who.address[2:])
        nonce = self.chain.state().get_nonce(address)
        wanted = Transaction(CHAIN_ID, nonce, to, data, 400_000, 10**10, 0)
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
    coins = {who.address: WEALTH for who in (DEPLOYER, PAYER, PROVIDER)}
    chain = Chain.open(tmp_path / "chain.db", rich=coins)
    at = deploy(chain, KEYS[0], {PAYER.address: MINTED})
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
        terms = Terms(PAYER.address, PROVIDER.address, at.token, CLOSE_DELAY, "5a" * 32)
        world = World(chain, network, client, book, terms)
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
