"""Real networks by name: what each one is, and which settings have to complete it."""

from __future__ import annotations

from dataclasses import dataclass

from agentkit.config import ChainSettings
from agentkit.errors import ConfigError
from agentkit.market.chain import Network
from agentkit.money import Asset

OP_GAS_ORACLE = "0x420000000000000000000000000000000000000F"
"""The contract of the OP stack that says what a transaction's data costs on Ethereum."""


@dataclass(frozen=True)
class NetworkProfile:
    """What is fixed about a network: its chain id, Circle's USDC on it, and how it settles.

    `token_name`: the name in the token's EIP-712 domain.  `finality`: blocks after which a receipt
    counts (2 s each on rollups, 12 s on Ethereum).
    `gas_oracle`: set where a transaction also pays for its data on another chain.
    """

    chain_id: int
    usdc: str
    token_name: str
    finality: int
    gas_oracle: str = ""


NETWORKS = {
    "ethereum": NetworkProfile(1, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USD Coin", 32),
    "sepolia": NetworkProfile(11155111, "0x1c7D4B196Cb0C7B01d743Fbc6116a902379C7238", "USDC", 12),
    "optimism": NetworkProfile(
        10, "0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85", "USD Coin", 15, OP_GAS_ORACLE
    ),
    "optimism-sepolia": NetworkProfile(
        11155420, "0x5fd84259d66Cd46123540766Be93DFE6D43130D7", "USDC", 5, OP_GAS_ORACLE
    ),
    "base": NetworkProfile(
        8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", 15, OP_GAS_ORACLE
    ),
    "base-sepolia": NetworkProfile(
        84532, "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", 5, OP_GAS_ORACLE
    ),
}
"""Addresses as Circle lists them; the chain is asked for each before anything is signed."""

TOKEN_VERSION = "2"  # noqa: S105
"""The version in the EIP-712 domain of Circle's USDC."""


def real_network(name: str, chain: ChainSettings) -> Network:
    """Return a real network by name, completed by the settings.

    Raises ConfigError for an unknown name, and for a setting that is missing.
    """
    profile = NETWORKS.get(name)
    if profile is None:
        raise ConfigError(
            f"there is no network {name!r}",
            hint=f"set network to one of: {', '.join(NETWORKS)}; leave it out for embedded",
        )
    if not chain.rpc:
        raise ConfigError(
            f"chain.rpc is not set for {name}",
            hint="set rpc under [chain] in agentkit.toml, or AGENTKIT_CHAIN__RPC",
        )
    caip2_id = f"eip155:{profile.chain_id}"
    return Network(
        name=name,
        chain_id=profile.chain_id,
        rpc=chain.rpc,
        currency=Asset.named("USDC").bind(caip2_id, f"erc20:{profile.usdc}"),
        coin=Asset.named("ETH").bind(caip2_id, "slip44:60"),
        token=profile.usdc,
        token_name=chain.token_name or profile.token_name,
        token_version=TOKEN_VERSION,
        channels=chain.channels,
        escrow=chain.escrow,
        anchor=chain.anchor,
        finality=chain.finality or profile.finality,
        gas_oracle=profile.gas_oracle,
    )
