"""Real networks by name: what each one is, and which settings have to complete it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from agentkit import strict_toml
from agentkit.config import ChainSettings
from agentkit.errors import ConfigError
from agentkit.market.chain import Network
from agentkit.money import Asset


@dataclass(frozen=True)
class NetworkProfile:
    """What is fixed about a network; `networks.toml` says what each field is."""

    chain_id: int
    usdc: str
    token_name: str
    finality: int
    coin: str = "ETH"
    slip44: int = 60
    gas_oracle: str = ""


def _profiles() -> dict[str, NetworkProfile]:
    text = files("agentkit.payments").joinpath("networks.toml").read_text("utf-8")
    return {name: NetworkProfile(**fields) for name, fields in strict_toml.loads(text).items()}


NETWORKS = _profiles()
"""The networks that ship with the package, by name."""

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
        coin=Asset.named(profile.coin).bind(caip2_id, f"slip44:{profile.slip44}"),
        token=profile.usdc,
        token_name=chain.token_name or profile.token_name,
        token_version=TOKEN_VERSION,
        channels=chain.channels,
        escrow=chain.escrow,
        anchor=chain.anchor,
        finality=chain.finality or profile.finality,
        gas_oracle=profile.gas_oracle,
    )
