"""What a wallet holds of a network's currency, as the token's contract says."""

from __future__ import annotations

from agentkit.errors import InsufficientFunds
from agentkit.market.chain import ChainClient, Network
from agentkit.money import Money
from agentkit.payments import abi


async def token_balance(chain: ChainClient, network: Network, address: str) -> int:
    """Return how many units of the network's currency an address holds (ERC-20)."""
    data = abi.encode("balanceOf(address)", address)
    return abi.numbers(await chain.call(network.token, data))[0]


async def check_balance(
    chain: ChainClient, network: Network, payer: str, units: int, *, purpose: str
) -> None:
    """Raise InsufficientFunds when a payer holds less than `units` for a `purpose`, "a top-up".

    Asked before anything is signed: a transfer that the token refuses would still cost gas.
    """
    balance = await token_balance(chain, network, payer)
    if units > balance:
        currency = network.currency
        raise InsufficientFunds(
            f"{purpose} of {Money(units, currency)} is needed,"
            f" and the wallet holds {Money(balance, currency)}"
        )
