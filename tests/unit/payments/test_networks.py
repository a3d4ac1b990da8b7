"""What a chain says of itself is compared with what is configured before anything is signed."""

import pytest
from support.sending_scenarios import PAYER, SHOP
from x402.mechanisms.evm.default_assets import DEFAULT_ASSETS

from agentkit.config import ChainSettings
from agentkit.errors import ConfigError
from agentkit.keys.messages import UnsignedTransaction, checksummed
from agentkit.market.chain import SETTLEMENT
from agentkit.payments.chain import _receipt
from agentkit.payments.networks import NETWORKS, real_network

CHAIN = ChainSettings(rpc="http://127.0.0.1:1", channels="0x" + "11" * 20)


# -- profiles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_whole(name: str) -> None:
    network = real_network(name, CHAIN)
    assert network.token == checksummed(network.token)
    assert network.currency.id.endswith(f"erc20:{network.token}")
    assert network.finality > 1
    assert bool(network.gas_oracle) == name.startswith(("base", "optimism"))
    assert not network.test, "a limit on gas has to be set for it"


def test_the_tokens_are_those_that_the_x402_sdk_knows() -> None:
    known = {network: assets[0] for network, assets in DEFAULT_ASSETS.items()}
    ours = {profile.chain_id: profile for profile in NETWORKS.values()}
    both = [chain for chain in ours if f"eip155:{chain}" in known]
    assert len(both) >= 7
    for chain in both:
        theirs = known[f"eip155:{chain}"]
        assert (ours[chain].usdc, ours[chain].token_name) == (theirs["asset"], theirs["name"])


def test_networks_differ_in_chain_and_token() -> None:
    assert len({profile.chain_id for profile in NETWORKS.values()}) == len(NETWORKS)
    assert len({profile.usdc for profile in NETWORKS.values()}) == len(NETWORKS)


def test_what_a_network_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match=r"chain\.rpc is not set for base") as wrong:
        real_network("base", CHAIN.model_copy(update={"rpc": ""}))
    assert wrong.value.hint == "set rpc under [chain] in agentkit.toml, or AGENTKIT_CHAIN__RPC"


def test_no_contract_of_ours_is_needed_to_buy_over_x402() -> None:
    network = real_network("base", CHAIN.model_copy(update={"channels": "", "escrow": ""}))
    assert (network.channels, network.escrow) == ("", "")
    assert network.settlement_domain.contract == SETTLEMENT


def test_an_unknown_network_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no network 'bose'") as wrong:
        real_network("bose", CHAIN)
    assert "base-sepolia" in wrong.value.hint


def test_settings_replace_what_is_known() -> None:
    chain = CHAIN.model_copy(update={"finality": 64, "token_name": "Bridged USDC"})
    network = real_network("base", chain)
    assert (network.finality, network.token_name) == (64, "Bridged USDC")


def test_a_receipt_of_a_rollup_says_what_data_cost() -> None:
    transaction = "0x" + "ab" * 32
    found = {
        "transactionHash": bytes.fromhex("ab" * 32),
        "blockNumber": 5,
        "status": 1,
        "gasUsed": 100,
        "effectiveGasPrice": 3,
        "logs": [],
    }
    assert _receipt(transaction, found).cost == 300
    assert _receipt(transaction, {**found, "l1Fee": "0x64"}).cost == 400


def test_signed_bytes_tell_what_they_do() -> None:
    call = UnsignedTransaction(
        10, 7, SHOP.address, b"\x01" * 100, 21_000, 5 * 10**9, 10**9, value=3
    )
    raw = PAYER.sign_tx(call)[1]
    assert UnsignedTransaction.of(raw) == call
    assert 60 < len(raw) - len(call.unsigned()) < 75
