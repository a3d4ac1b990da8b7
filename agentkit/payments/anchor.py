"""The head anchor in its contract (`contracts/HeadAnchor.vy`)."""

from __future__ import annotations

from agentkit.errors import ConfigError, SettlementFailed
from agentkit.market.anchor import PURPOSE
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.seams import Transaction
from agentkit.payments import abi
from agentkit.payments.sender import Sender


async def anchored_head(chain: ChainClient, network: Network, owner: str) -> str:
    """Return the head that stands on the chain for an address, "" for none yet."""
    contract = anchor_contract(network)
    head = await chain.call(contract, abi.encode("headOf(address)", owner))
    if len(head) != 32:
        raise ConfigError(
            f"{contract} on {network.name} is no contract 'HeadAnchor'",
            hint="check chain.anchor in agentkit.toml",
        )
    return head.hex() if any(head) else ""


def anchor_contract(network: Network) -> str:
    """Return where heads are anchored; raises ConfigError where that is not set."""
    if not network.anchor:
        old = "run `agentkit network stop`: the network that runs is of an older version"
        raise ConfigError(
            f"memory.head_anchor is set, and chain.anchor is not for {network.name}",
            hint=old if network.test else "set chain.anchor to where a HeadAnchor contract is",
        )
    return network.anchor


class EvmAnchor:
    """A wallet's head in the network's contract; see `market.anchor.HeadAnchor`."""

    def __init__(self, chain: ChainClient, network: Network, owner: str, sender: Sender) -> None:
        self._chain = chain
        self._network = network
        self._owner = owner
        self._sender = sender
        self._contract = anchor_contract(network)
        sender.on_final[PURPOSE] = self._advanced

    async def head(self) -> str:
        return await anchored_head(self._chain, self._network, self._owner)

    async def advance(self, expected: str, head: str) -> None:
        words = (bytes.fromhex(expected), bytes.fromhex(head))
        data = abi.encode("advance(bytes32,bytes32)", *words)
        await self._sender.send(f"{PURPOSE}:{head}", self._contract, data)

    def _advanced(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Refuse a success without the contract's own log of it."""
        head = bytes.fromhex(intent.partition(":")[2])
        for log in receipt.logs:
            here = log.address.lower() == self._contract.lower()
            if here and log.topics[:1] == (abi.ADVANCED,) and log.topics[-1] == head:
                return
        raise SettlementFailed(f"transaction {receipt.transaction} moved no head")
