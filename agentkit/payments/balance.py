"""What a wallet holds of a network's currency, as the token's contract says."""

from __future__ import annotations

from agentkit.errors import InsufficientFunds
from agentkit.journal import records as r
from agentkit.market.chain import ChainClient, Network
from agentkit.market.rail_names import chain_of
from agentkit.market.seams import Transaction
from agentkit.money import Money
from agentkit.payments import abi


async def token_balance(chain: ChainClient, network: Network, address: str) -> int:
    """Return how many units of the network's currency an address holds (ERC-20)."""
    data = abi.encode("balanceOf(address)", address)
    return abi.number(await chain.call(network.token, data))


def own_amount(rail: str, amount: Money, network: Network) -> Money:
    """Return an amount of a budget in the currency of the network that a rail pays on.

    Only a rail on another network than the budget's (its name says so) may take one currency for
    the other, by the user's word.  Raises BadAmount where it must not.
    """
    currency = network.currency
    return amount.counted_in(currency) if chain_of(rail) else amount.bind(currency)


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


def check_unpromised(tx: Transaction, network: Network, balance: int, units: int) -> None:
    """Raise InsufficientFunds unless a wallet holds a deposit beside all that it has promised.

    `balance` is what it holds, `units` the deposit, both in base units.
    """
    currency = network.currency
    total = tx.get(r.Total, f"signed|{currency.id}")
    promised = total.amount.units if total else 0
    if units + promised > balance:
        raise InsufficientFunds(
            f"a deposit of {Money(units, currency)} is needed, and the wallet holds"
            f" {Money(balance, currency)} on {network.name}, of which"
            f" {Money(promised, currency)} are promised"
        )
