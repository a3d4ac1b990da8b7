"""Which transfer on the chain is the settlement of a payment by `upto`.

Permit2 logs nothing about a transfer.  What tells one settlement from another is the payer's nonce,
which Permit2 takes once, and which stands in the call that settled, in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentkit.keys.messages import address_word
from agentkit.keys.permit2_messages import UPTO_PROXY
from agentkit.market.chain import ChainClient, Network
from agentkit.market.upto import UptoPayload
from agentkit.payments import abi
from agentkit.payments.upto import contract

MOST_TRANSFERS = 200
"""How many transfers between payer and payee are looked at to find one."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A transfer that a payment was used for."""

    units: int
    transaction: str


async def is_settlement(
    chain: ChainClient, network: Network, payload: UptoPayload, units: int, transaction: str
) -> bool:
    """Return whether a transaction has settled a payment with `units`.

    A facilitator may name any transaction, also one that settled another payment of the same
    amount.  So the nonce has to be used, and the call has to be the one that settles it.
    """
    authorization = payload.permit2_authorization
    receipt = await chain.receipt(transaction) if transaction else None
    payer, payee = authorization.sender, authorization.witness.to
    if receipt is None or not contract.has_moved(receipt, network, payer, payee, units):
        return False
    if not await contract.is_used(chain, payer, authorization.nonce_number):
        return False
    return await _settles(chain, payload, units, transaction)


async def find_settlement(
    chain: ChainClient, network: Network, payload: UptoPayload, units: int, *, since: int
) -> str:
    """Return the transaction that has settled a payment with `units`, "" where none has.

    The facilitator's answer may have been lost, and not every facilitator repeats it.
    """
    authorization = payload.permit2_authorization
    payer, payee = authorization.sender, authorization.witness.to
    if not await contract.is_used(chain, payer, authorization.nonce_number):
        return ""
    topics: list[bytes | None] = [abi.TRANSFER, address_word(payer), address_word(payee)]
    logs = await chain.logs(network.token, topics, first=since, last=await chain.head())
    for log in logs[-MOST_TRANSFERS:]:
        if abi.numbers(log.data) != [units]:
            continue
        if await _settles(chain, payload, units, log.transaction):
            return log.transaction
    return ""


async def _settles(chain: ChainClient, payload: UptoPayload, units: int, transaction: str) -> bool:
    """Return whether a transaction is the call of the proxy that settles a payment with `units`.

    A call that a contract passes on does not count: it could move one amount, and have the data of
    the call for another payment.
    """
    authorization = payload.permit2_authorization
    data = await chain.data_of(transaction, to=UPTO_PROXY)
    return contract.is_settle_call(data, authorization.permit(), units, authorization.sender)


async def drawn_by(
    chain: ChainClient, network: Network, payload: UptoPayload, since: int
) -> Drawn | None:
    """Return the transfer that a used payment was drawn by, None where that cannot be told.

    Only a call of the proxy itself says which payment it moves, and how much.  A facilitator may be
    a contract, which hides that, and names the payment beside a transfer of nothing.
    """
    authorization = payload.permit2_authorization
    topics: list[bytes | None] = [
        abi.TRANSFER,
        address_word(authorization.sender),
        address_word(authorization.witness.to),
    ]
    logs = await chain.logs(network.token, topics, first=since, last=await chain.head())
    for log in logs[:MOST_TRANSFERS]:
        units = abi.number(log.data)
        if await _settles(chain, payload, units, log.transaction):
            return Drawn(units, log.transaction)
    return None
