"""Real networks by name: those that ship, those of the user, and what the settings add to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from agentkit import strict_toml
from agentkit.config import ChainSettings, NetworkSettings, Settings
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
    gas_oracle: str = ""
    token_version: str = "2"  # noqa: S105  # Circle's USDC

    @classmethod
    def of_own(cls, name: str, own: NetworkSettings) -> NetworkProfile:
        """Return the profile of a user's own network; raises ConfigError for a missing key."""
        from agentkit.keys.messages import checksummed  # slow to import

        for key in ("chain_id", "token", "token_name"):
            if not getattr(own, key):
                raise ConfigError(
                    f"networks.{name}.{key} is not set, and {name!r} is no network that ships",
                    hint=f"set {key} under [networks.{name}], or name one of: {_shipped()}",
                )
        assert own.chain_id is not None
        return cls(
            chain_id=own.chain_id,
            usdc=checksummed(own.token),
            token_name=own.token_name,
            finality=own.finality or OWN_FINALITY,
            coin=own.coin or cls.coin,
            gas_oracle=own.gas_oracle,
            token_version=own.token_version or cls.token_version,
        )

    def check_same(self, name: str, own: NetworkSettings) -> None:
        """Raise ConfigError where settings give a network that ships another chain or token.

        A name that everybody knows must not stand for something else.
        """
        given = (own.chain_id, own.token.lower(), own.coin)
        known = (self.chain_id, self.usdc.lower(), self.coin)
        for key, said, fact in zip(("chain_id", "token", "coin"), given, known, strict=True):
            if said and said != fact:
                raise ConfigError(
                    f"networks.{name}.{key} is {said}, and {name} has {fact}",
                    hint=f"take it out, or give your own network another name than {name!r}",
                )


def _profiles() -> dict[str, NetworkProfile]:
    text = files("agentkit.payments").joinpath("networks.toml").read_text("utf-8")
    return {name: NetworkProfile(**fields) for name, fields in strict_toml.loads(text).items()}


NETWORKS = _profiles()
"""The networks that ship with the package, by name."""

OWN_FINALITY = 32
"""Blocks after which a receipt counts on a user's own network that does not say so."""

COINS = {"ETH": 60, "POL": 966, "AVAX": 9005}
"""The coins that gas is paid in, with their numbers in SLIP-44."""


def usdc_on(chain: str) -> str:
    """Return the address of USDC on a chain (CAIP-2) that ships, "" for another one."""
    tokens = (known.usdc for known in NETWORKS.values() if f"eip155:{known.chain_id}" == chain)
    return next(tokens, "")


def real_network(
    name: str, chain: ChainSettings, own: Mapping[str, NetworkSettings] | None = None
) -> Network:
    """Return a real network by name, completed by the settings.

    `chain` are the settings of the wallet's home network, which win over its part of `own`.
    Raises ConfigError for an unknown name, and for a setting that is missing.
    """
    settings = (own or {}).get(name)
    profile = _profile(name, settings)
    settings = settings or NetworkSettings()
    rpc = (chain.rpc,) if chain.rpc else settings.rpc
    if not rpc:
        raise ConfigError(
            f"chain.rpc is not set for {name}",
            hint=f"set rpc under [networks.{name}] or [chain] in agentkit.toml,"
            " or AGENTKIT_CHAIN__RPC",
        )
    caip2_id = f"eip155:{profile.chain_id}"
    return Network(
        name=name,
        chain_id=profile.chain_id,
        rpc=rpc[0],
        other_rpcs=rpc[1:],
        currency=Asset.named("USDC").bind(caip2_id, f"erc20:{profile.usdc}"),
        coin=_coin(name, profile.coin).bind(caip2_id, f"slip44:{COINS[profile.coin]}"),
        token=profile.usdc,
        token_name=chain.token_name or settings.token_name or profile.token_name,
        token_version=settings.token_version or profile.token_version,
        channels=chain.channels,
        escrow=chain.escrow,
        anchor=chain.anchor,
        finality=chain.finality or settings.finality or profile.finality,
        gas_oracle=settings.gas_oracle or profile.gas_oracle,
    )


def home_network(settings: Settings, name: str) -> Network:
    """Return the wallet's home network, with the others that it pays on.

    Those are all that the settings have an RPC address for.  Raises ConfigError as `real_network`,
    and for two networks of one chain: a rail's name tells them by it.
    """
    home = real_network(name, settings.chain, settings.networks)
    beside: list[Network] = []
    for other, own in settings.networks.items():
        if other != name and own.rpc:
            network = real_network(other, ChainSettings(), settings.networks)
            for known in (home, *beside):
                _check_differ(known, network)
            beside.append(network)
    counts = settings.usd is not None
    return home.model_copy(update={"beside": tuple(beside), "counts_beside": counts})


def _check_differ(one: Network, other: Network) -> None:
    if one.chain_id == other.chain_id:
        raise ConfigError(
            f"networks {one.name!r} and {other.name!r} are both chain {one.chain_id}",
            hint=f"take [networks.{other.name}] out of agentkit.toml",
        )


def _profile(name: str, own: NetworkSettings | None) -> NetworkProfile:
    """Return what is known of a network; raises ConfigError for an unknown one."""
    shipped = NETWORKS.get(name)
    if shipped and own:
        shipped.check_same(name, own)
    if shipped:
        return shipped
    if own:
        return NetworkProfile.of_own(name, own)
    raise ConfigError(
        f"there is no network {name!r}",
        hint=f"set network to one of: {_shipped()}; to one of your own that stands under"
        f" [networks.{name}]; or leave it out for embedded",
    )


def _coin(name: str, symbol: str) -> Asset:
    """Return the coin of a network; raises ConfigError for one that is not known."""
    if symbol not in COINS:
        raise ConfigError(
            f"networks.{name}.coin is {symbol!r}, which is not known",
            hint=f"set it to one of: {', '.join(COINS)}",
        )
    return Asset.named(symbol)


def _shipped() -> str:
    return ", ".join(NETWORKS)
