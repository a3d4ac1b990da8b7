"""What gas costs as a row of a plan."""

from __future__ import annotations

from agentkit.market.chain import ChainClient, Network
from agentkit.market.plan import Fee
from agentkit.money import Money


async def gas_fee(chain: ChainClient, network: Network, gas: int, on: str) -> Fee:
    """Return the fee row for transactions that use `gas` units; `on` says what they do.

    `chain.fees` offers a maximum of twice the base fee, of which a block takes the base fee
    (EIP-1559); so about half of it is expected.  Until the transactions are sent, fees may double.
    """
    fees = await chain.fees()
    price = Money(gas * (fees.max_fee + fees.max_tip) // 2, network.coin)
    at_most = Money(gas * 2 * fees.max_fee, network.coin)
    return Fee(name="gas", on=on, price=price, at_most=at_most)
