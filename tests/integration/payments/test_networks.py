"""What a chain says of itself is compared with what is configured before anything is signed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support import chain_processes
from support.chain_processes import Node
from support.sending_scenarios import PAYER, SHOP, deploy_token, network_at

from agentkit.errors import ConfigError, OverBudget
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.keys.messages import UnsignedTransaction
from agentkit.market.chain import Network
from agentkit.money import Asset, Money
from agentkit.payments import abi
from agentkit.payments.chain import Web3Chain
from agentkit.payments.networks import NETWORKS
from agentkit.payments.sender import Sender

DATA_FEE = 7 * 10**12
OP_GAS_ORACLE = NETWORKS["base"].gas_oracle


@pytest.fixture(scope="module")
def node() -> object:
    with chain_processes.anvil() as started:
        yield started


@pytest.fixture(scope="module")
def token(node: Node) -> str:
    return deploy_token(node)


@asynccontextmanager
async def opened(network: Network) -> AsyncIterator[Web3Chain]:
    chain = Web3Chain(network)
    try:
        yield chain
    finally:
        await chain.close()


# -- what the chain says -------------------------------------------------------------------------


@pytest.mark.anvil
async def test_the_right_chain_and_token_are_taken(node: Node, token: str) -> None:
    async with opened(network_at(node.url, token)) as chain:
        assert await chain.head() > 0


@pytest.mark.anvil
@pytest.mark.parametrize(
    ("changes", "said", "hint"),
    [
        ({"chain_id": 8453}, "is chain 1337", "check the rpc address"),
        ({"token_name": "USDC"}, "is not the contract 'USDC', version '1'", "check `network`"),
        ({"token_version": "2"}, "is not the contract 'USD Coin', version '2'", "check `network`"),
        ({"token": "0x" + "22" * 20}, "is not the contract 'USD Coin'", "check `network`"),
        (
            {"channels": "0x" + "22" * 20},
            "is not the contract 'AgentChannels'",
            "check chain.channels",
        ),
        ({"escrow": "0x" + "22" * 20}, "is not the contract 'TaskEscrow'", "check chain.escrow"),
        ({"channels": "token"}, "is not the contract 'AgentChannels'", "check chain.channels"),
    ],
)
async def test_a_wrong_chain_or_contract_is_refused_before_anything_is_signed(
    node: Node, token: str, tmp_path: Path, changes: dict[str, object], said: str, hint: str
) -> None:
    changes = {key: token if value == "token" else value for key, value in changes.items()}
    network = network_at(node.url, token).model_copy(update=changes)
    journal = await Journal.open(tmp_path, PAYER.address)
    async with opened(network) as chain:
        sender = Sender(journal, chain, PAYER, network)
        for _ in range(2):
            with pytest.raises(ConfigError, match=said) as wrong:
                await sender.send("pay:a", token, b"")
            assert wrong.value.hint.startswith(hint)
    assert await journal.commit(lambda tx: tx.every(r.EvmTransaction)) == []
    await journal.close()


@pytest.mark.anvil
async def test_other_decimals_are_refused(node: Node, token: str) -> None:
    here, there = network_at(node.url, token).currency, Asset.named("ETH")
    odd = there.bind("eip155:1337", f"erc20:{token}")
    assert odd.decimals != here.decimals
    network = network_at(node.url, token).model_copy(update={"currency": odd})
    async with opened(network) as chain:
        with pytest.raises(ConfigError, match=r"has 6 decimals, and ETH has 18"):
            await chain.head()


# -- what data costs -----------------------------------------------------------------------------


def answering(value: int) -> str:
    """Code of a contract that answers everything with a number."""
    return "0x7f" + value.to_bytes(32, "big").hex() + "60005260206000f3"


@pytest.mark.anvil
async def test_what_a_rollup_charges_for_data_counts_towards_gas(
    node: Node, token: str, tmp_path: Path
) -> None:
    node.rpc("anvil_setCode", OP_GAS_ORACLE, answering(DATA_FEE))
    network = network_at(node.url, token)
    rollup = network.model_copy(update={"gas_oracle": OP_GAS_ORACLE})
    data = abi.encode("transfer(address,uint256)", SHOP.address, 5)
    costs = []
    for number, one in enumerate((network, rollup)):
        journal = await Journal.open(tmp_path / str(number), PAYER.address)
        async with opened(one) as chain:
            await Sender(journal, chain, PAYER, one).send(f"pay:{number}", token, data)
            fees = await chain.fees()
        rows = await journal.rows("wallet")
        signed = next(e for e in (row.event() for row in rows) if hasattr(e, "raw"))
        call = UnsignedTransaction.of(bytes.fromhex(signed.raw))
        costs.append(signed.cost.units - call.gas * call.max_fee)
        assert fees.max_fee > 0
        await journal.close()
    assert costs == [0, 2 * DATA_FEE]


@pytest.mark.anvil
async def test_a_limit_on_gas_that_data_would_pass_is_kept(
    node: Node, token: str, tmp_path: Path
) -> None:
    node.rpc("anvil_setCode", OP_GAS_ORACLE, answering(10**18))
    network = network_at(node.url, token).model_copy(update={"gas_oracle": OP_GAS_ORACLE})
    journal = await Journal.open(tmp_path, PAYER.address)
    async with opened(network) as chain:
        sender = Sender(journal, chain, PAYER, network, Money.parse("1 ETH"))
        data = abi.encode("transfer(address,uint256)", SHOP.address, 5)
        with pytest.raises(OverBudget) as over:
            await sender.send("pay:a", token, data)
    assert over.value.limit == "gas"
    assert await journal.commit(lambda tx: tx.every(r.EvmTransaction)) == []
    await journal.close()
