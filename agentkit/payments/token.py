"""Reads of the currency's token (ERC-20)."""

from __future__ import annotations

from agentkit.market.chain import ChainClient, Network
from agentkit.payments import abi


async def token_balance(chain: ChainClient, network: Network, address: str) -> int:
    """Return how many units of the network's currency an address holds."""
    data = abi.encode("balanceOf(address)", address)
    return abi.numbers(await chain.call(network.token, data))[0]
