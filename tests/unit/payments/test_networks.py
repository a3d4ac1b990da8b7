"""What a chain says of itself is compared with what is configured before anything is signed."""

from typing import Any

import pytest
from pydantic import ValidationError
from support.sending_scenarios import PAYER, SHOP
from x402.mechanisms.evm.default_assets import DEFAULT_ASSETS

from agentkit.config import ChainSettings, NetworkSettings, Settings
from agentkit.errors import ConfigError
from agentkit.keys.messages import UnsignedTransaction, checksummed
from agentkit.market.chain import SETTLEMENT
from agentkit.payments.chain import _receipt
from agentkit.payments.networks import NETWORKS, home_network, real_network

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


def test_twelve_networks_ship() -> None:
    assert len(NETWORKS) == 12


def test_networks_differ_in_chain_and_token() -> None:
    assert len({profile.chain_id for profile in NETWORKS.values()}) == len(NETWORKS)
    assert len({profile.usdc for profile in NETWORKS.values()}) == len(NETWORKS)


def test_what_a_network_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match=r"chain\.rpc is not set for base") as wrong:
        real_network("base", CHAIN.model_copy(update={"rpc": ""}))
    hint = "set rpc under [networks.base] or [chain] in agentkit.toml, or AGENTKIT_CHAIN__RPC"
    assert wrong.value.hint == hint


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


# -- networks in the settings --------------------------------------------------------------------

OWN: dict[str, Any] = {
    "chain_id": 4242,
    "rpc": ["http://127.0.0.1:1", "http://127.0.0.1:2"],
    "token": "0x" + "ab" * 20,
    "token_name": "USDC",
}


def own(**changes: object) -> dict[str, NetworkSettings]:
    return {"mine": NetworkSettings.model_validate({**OWN, **changes})}


def test_a_network_of_ones_own_is_described_in_the_settings() -> None:
    changes = {"token_version": "1", "finality": 3, "coin": "POL", "gas_oracle": "0x" + "12" * 20}
    network = real_network("mine", ChainSettings(), own(**changes))
    assert (network.id, network.rpc) == ("eip155:4242", "http://127.0.0.1:1")
    assert network.other_rpcs == ("http://127.0.0.1:2",)
    assert network.token == checksummed(OWN["token"])
    assert network.currency.id == f"eip155:4242/erc20:{network.token}"
    assert network.coin.id == "eip155:4242/slip44:966"
    assert (network.token_name, network.token_version) == ("USDC", "1")
    assert (network.finality, network.gas_oracle) == (3, "0x" + "12" * 20)
    assert not network.test


def test_what_one_of_ones_own_leaves_out_has_a_value_or_is_named() -> None:
    network = real_network("mine", ChainSettings(), own())
    assert (network.finality, network.coin.symbol, network.token_version) == (32, "ETH", "2")
    for key in ("chain_id", "token", "token_name"):
        lacking = {"mine": own()["mine"].model_copy(update={key: None})}
        with pytest.raises(ConfigError, match=rf"networks\.mine\.{key} is not set"):
            real_network("mine", ChainSettings(), lacking)
    with pytest.raises(ConfigError, match="'DOGE', which is not known"):
        real_network("mine", ChainSettings(), own(coin="DOGE"))


def test_a_network_that_ships_is_completed_by_the_settings() -> None:
    settings = {"base": NetworkSettings.model_validate({"rpc": "https://a.example", "finality": 3})}
    network = real_network("base", ChainSettings(), settings)
    assert (network.rpc, network.other_rpcs) == ("https://a.example", ())
    assert (network.chain_id, network.finality) == (8453, 3)
    home = real_network("base", CHAIN, settings)
    assert home.rpc == CHAIN.rpc, "[chain] wins for the home network"


@pytest.mark.parametrize(
    ("key", "value"), [("chain_id", 10), ("token", "0x" + "ab" * 20), ("coin", "POL")]
)
def test_a_name_that_everybody_knows_stands_for_nothing_else(key: str, value: object) -> None:
    given = {"base": NetworkSettings.model_validate({"rpc": "https://a.example", key: value})}
    with pytest.raises(ConfigError, match=rf"networks\.base\.{key} is") as wrong:
        real_network("base", ChainSettings(), given)
    assert "another name" in wrong.value.hint


def settings_with(**networks: object) -> Settings:
    return Settings(network="base", chain=CHAIN, networks=networks)  # type: ignore[arg-type]


def test_the_wallet_pays_on_every_network_with_an_address() -> None:
    reached = {"rpc": "https://a.example"}
    settings = settings_with(optimism=reached, base=reached, mine=OWN, polygon={"finality": 3})
    home = home_network(settings, "base")
    assert home.rpc == CHAIN.rpc
    assert [network.name for network in home.beside] == ["optimism", "mine"]
    assert not any(network.channels for network in home.beside), "ours stand at home alone"
    assert home.counted == (home,)
    said = home_network(settings.model_copy(update={"usd": "usdc"}), "base")
    assert [network.name for network in said.counted] == ["base", "optimism", "mine"]


def test_two_networks_of_one_chain_are_refused() -> None:
    for chain in (8453, 10):
        mine = {**OWN, "chain_id": chain}
        settings = settings_with(optimism={"rpc": "https://a.example"}, mine=mine)
        with pytest.raises(ConfigError, match=f"are both chain {chain}"):
            home_network(settings, "base")


@pytest.mark.parametrize(
    "wrong",
    [{"rpc": "ftp://a"}, {"token": "0x12"}, {"gas_oracle": "x"}, {"chain_id": 0}, {"rpcs": "x"}],
)
def test_what_cannot_be_a_network_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NetworkSettings.model_validate({**OWN, **wrong})


# -- what is signed and mined --------------------------------------------------------------------


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
