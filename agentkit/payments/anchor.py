"""Reads and moves a wallet's anchored head in its contract (`contracts/HeadAnchor.vy`)."""

from __future__ import annotations

from agentkit.errors import ConfigError, SettlementFailed
from agentkit.market.anchor import PURPOSE
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.seams import Transaction
from agentkit.payments import abi
from agentkit.payments.sender import Sender


async def anchored_head(chain: ChainClient, network: Network, owner: str) -> str:
    """Return the head that the contract holds for an address, "" before the first.

    Raises ConfigError when the address of the contract is not set, or is not one.
    """
    contract = anchor_contract(network)
    head = await chain.call(contract, abi.encode("headOf(address)", owner))
    if len(head) != 32:  # an address without code answers with nothing
        raise ConfigError(
            f"{contract} on {network.name} is not a contract 'HeadAnchor'",
            hint="check chain.anchor in agentkit.toml",
        )
    return head.hex() if any(head) else ""


def anchor_contract(network: Network) -> str:
    """Return the contract that holds heads; raises ConfigError where it is not set."""
    if not network.anchor:
        if network.test:
            hint = "run `agentkit network stop`: the network that runs is of an older version"
        else:
            hint = "set chain.anchor to the address of a HeadAnchor contract"
        raise ConfigError(
            f"memory.head_anchor is set, and chain.anchor is not for {network.name}",
            hint=hint,
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
        sender.on_final[PURPOSE] = self._check_advanced

    async def head(self) -> str:
        """Return the head that the contract holds now, "" before the first."""
        return await anchored_head(self._chain, self._network, self._owner)

    async def advance(self, expected: str, head: str) -> None:
        """Move the head on from `expected`, exactly once, and return when that is final."""
        data = abi.encode("advance(bytes32,bytes32)", bytes.fromhex(expected), bytes.fromhex(head))
        await self._sender.send(f"{PURPOSE}:{head}", self._contract, data)

    def _check_advanced(self, tx: Transaction, intent: str, receipt: ChainReceipt) -> None:
        """Raise SettlementFailed for a transaction that moved no head.

        A transaction can succeed without effect; only the contract's own log shows the move.
        """
        head = bytes.fromhex(intent.partition(":")[2])
        for log in receipt.logs:
            is_contract = log.address.lower() == self._contract.lower()
            if is_contract and log.topics[:1] == (abi.ADVANCED,) and log.topics[-1] == head:
                return
        raise SettlementFailed(f"transaction {receipt.transaction} moved no head")
