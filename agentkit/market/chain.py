"""The interface to a chain, and the network that payer and provider trade on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agentkit.errors import ConfigError
from agentkit.market.rail_names import chain_of, rail_on
from agentkit.market.value import Value
from agentkit.money import Asset

if TYPE_CHECKING:  # planning and local runs sign nothing, and its libraries are slow to import
    from agentkit.keys.messages import Domain


SETTLEMENT = "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003"
"""The contract of x402 `batch-settlement`, which has one address on all chains."""


class Network(Value):
    """A chain and the contracts on it that money moves through.

    `coin` pays for gas; `finality` is the number of blocks after which a receipt counts.  Without
    `escrow` nothing is paid through escrow, without `anchor` no head is anchored.  `channels`:
    the contract of channels that earlier versions opened, which are only closed.  `gas_oracle`: on
    rollups that charge for it, the contract that says what a transaction's data costs.
    `other_rpcs` are asked when `rpc` does not answer.

    `beside`, of a wallet's home network: the others that it pays on.  `counts_beside`: the user has
    said that their currencies equal this one's, so a budget counts them together.
    """

    name: str
    chain_id: int
    rpc: str
    other_rpcs: tuple[str, ...] = ()
    currency: Asset
    coin: Asset
    token: str
    token_name: str
    token_version: str
    channels: str = ""
    escrow: str = ""
    anchor: str = ""
    finality: int = 1
    gas_oracle: str = ""
    test: bool = False
    beside: tuple[Network, ...] = ()
    counts_beside: bool = False

    @property
    def id(self) -> str:
        """CAIP-2 id."""
        return f"eip155:{self.chain_id}"

    @property
    def counted(self) -> tuple[Network, ...]:
        """The networks whose currency counts as this one's, this one first."""
        return (self, *self.beside) if self.counts_beside else (self,)

    def rail_on(self, rail: str, chain: str) -> str:
        """Return the name of a rail on a chain (CAIP-2), as wallets at home here say it."""
        return rail_on(rail, "" if chain == self.id else chain)

    def network_of(self, rail: str) -> Network | None:
        """Return the network that a rail's name says, None for one that is not in the settings."""
        chain = chain_of(rail) or self.id
        known = (network for network in (self, *self.beside) if network.id == chain)
        return next(known, None)

    @property
    def channels_domain(self) -> Domain:
        """The EIP-712 domain of channels that earlier versions opened, in `channels`."""
        from agentkit.keys.messages import Domain

        return Domain("AgentChannels", "1", self.chain_id, self.channels)

    @property
    def settlement_domain(self) -> Domain:
        """The EIP-712 domain of channels by x402 `batch-settlement`, and of deliveries."""
        from agentkit.keys.messages import Domain

        return Domain("x402 Batch Settlement", "1", self.chain_id, SETTLEMENT)

    @property
    def escrow_domain(self) -> Domain:
        """The EIP-712 domain of quotes and acceptances; raises ConfigError without an escrow."""
        from agentkit.keys.messages import Domain

        if not self.escrow:
            raise ConfigError(f"{self.name} has no escrow contract", hint="set chain.escrow")
        return Domain("TaskEscrow", "1", self.chain_id, self.escrow)

    @property
    def token_domain(self) -> Domain:
        """The EIP-712 domain of the token's authorizations."""
        from agentkit.keys.messages import Domain

        return Domain(self.token_name, self.token_version, self.chain_id, self.token)


@dataclass(frozen=True, slots=True)
class Fees:
    """What a transaction has to offer now, in wei for each unit of gas (EIP-1559)."""

    max_fee: int
    max_tip: int


@dataclass(frozen=True, slots=True)
class Log:
    """One event of a contract."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    transaction: str
    block: int


@dataclass(frozen=True, slots=True)
class ChainReceipt:
    """The receipt of a mined transaction; `cost` in wei."""

    transaction: str
    block: int
    succeeded: bool
    cost: int
    logs: tuple[Log, ...]


class ChainClient(Protocol):
    """A chain over JSON-RPC.

    Every method may raise StoreUnavailable (no answer: the outcome is unknown) and ProtocolBroken.
    """

    async def chain_id(self) -> int:
        """Return the chain's id (EIP-155)."""

    async def head(self) -> int:
        """Return the number of the newest block."""

    async def time(self, block: int) -> int:
        """Return when a block was made, in unix seconds by the chain's own clock."""

    async def balance(self, address: str) -> int:
        """Return the balance of the chain's coin in wei."""

    async def nonce(self, address: str) -> int:
        """Return the number of the next transaction, pending ones counted."""

    async def nonce_at(self, address: str, block: int | None) -> int:
        """Return how many transactions of an address were mined up to a block (None: all)."""

    async def fees(self) -> Fees:
        """Return the fees with which a transaction is mined soon."""

    async def call(self, to: str, data: bytes) -> bytes:
        """Return what a contract answers; raises SettlementFailed when it reverts."""

    async def estimate(self, sender: str, to: str, data: bytes) -> int:
        """Return the gas a transaction needs; raises SettlementFailed when it would revert."""

    async def data_fee(self, raw: bytes) -> int:
        """Return what a transaction's bytes cost beside its gas, in wei; 0 on most chains."""

    async def send(self, raw: bytes) -> None:
        """Hand signed bytes to the chain; bytes it already has are not an error."""

    async def receipt(self, transaction: str) -> ChainReceipt | None:
        """Return the receipt of a transaction, None while it is not mined."""

    async def data_of(self, transaction: str, *, to: str = "") -> bytes:
        """Return the data of a call that is on the chain, b"" where there is none.

        With `to` only a call of that contract counts, and not one that another passes on.
        """

    async def logs(
        self, address: str, topics: list[bytes | None], first: int, last: int
    ) -> list[Log]:
        """Return a contract's logs in blocks `first` to `last`; a topic of None matches any."""

    async def close(self) -> None:
        """Close the connections."""
