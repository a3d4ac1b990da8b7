"""Real networks by name: what is known of each, and what the settings have to add."""

from __future__ import annotations

from dataclasses import dataclass

from agentkit.config import ChainSettings
from agentkit.errors import ConfigError
from agentkit.market.chain import Network
from agentkit.money import Asset

OP_GAS_ORACLE = "0x420000000000000000000000000000000000000F"
"""Where chains of the OP stack say what a transaction's data costs on Ethereum (a predeploy)."""


@dataclass(frozen=True)
class Profile:
    """A network: its chain id, Circle's USDC on it and that token's domain, and how it settles.

    `finality`: blocks after which a receipt counts (2 s each on rollups, 12 s on Ethereum).
    `gas_oracle`: set where a transaction also pays for its data on another chain.
    """

    chain_id: int
    usdc: str
    token_name: str
    finality: int
    gas_oracle: str = ""


NETWORKS = {
    "ethereum": Profile(1, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USD Coin", 32),
    "sepolia": Profile(11155111, "0x1c7D4B196Cb0C7B01d743Fbc6116a902379C7238", "USDC", 12),
    "optimism": Profile(
        10, "0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85", "USD Coin", 15, OP_GAS_ORACLE
    ),
    "optimism-sepolia": Profile(
        11155420, "0x5fd84259d66Cd46123540766Be93DFE6D43130D7", "USDC", 5, OP_GAS_ORACLE
    ),
    "base": Profile(
        8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", 15, OP_GAS_ORACLE
    ),
    "base-sepolia": Profile(
        84532, "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", 5, OP_GAS_ORACLE
    ),
}
"""Addresses as Circle lists them; what the chain says is compared before anything is signed."""

TOKEN_VERSION = "2"  # noqa: S105  # of the token's domain


def real_network(name: str, chain: ChainSettings) -> Network:
    """Return a network that is set by name; raises ConfigError for what is missing."""
    profile = NETWORKS.get(name)
    if profile is None:
        raise ConfigError(
            f"there is no network {name!r}",
            hint=f"set network to one of: {', '.join(NETWORKS)}; leave it out for embedded",
        )
    for key in ("rpc", "channels"):
        if not getattr(chain, key):
            raise ConfigError(
                f"chain.{key} is not set for {name}",
                hint=f"set {key} under [chain] in agentkit.toml, or AGENTKIT_CHAIN__{key.upper()}",
            )
    here = f"eip155:{profile.chain_id}"
    return Network(
        name=name,
        chain_id=profile.chain_id,
        rpc=chain.rpc,
        currency=Asset.named("USDC").bind(here, f"erc20:{profile.usdc}"),
        coin=Asset.named("ETH").bind(here, "slip44:60"),
        token=profile.usdc,
        token_name=chain.token_name or profile.token_name,
        token_version=TOKEN_VERSION,
        channels=chain.channels,
        escrow=chain.escrow,
        anchor=chain.anchor,
        finality=chain.finality or profile.finality,
        gas_oracle=profile.gas_oracle,
    )
