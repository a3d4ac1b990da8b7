"""What the chain shows of an authorization: the only proof that a payment arrived."""

from __future__ import annotations

from dataclasses import dataclass

from agentkit.keys.messages import address_word
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.x402 import Authorization
from agentkit.payments import abi

USED = abi.topic("AuthorizationUsed(address,bytes32)")


@dataclass(frozen=True, slots=True)
class Due:
    """A transfer that an authorization allows once."""

    payer: str
    payee: str
    units: int
    nonce: bytes

    @classmethod
    def of(cls, authorization: Authorization) -> Due:
        nonce = bytes.fromhex(authorization.nonce[2:])
        return cls(authorization.sender, authorization.to, int(authorization.value), nonce)


async def is_used(chain: ChainClient, network: Network, payer: str, nonce: bytes) -> bool:
    """Whether the token says that an authorization was used or canceled."""
    asked = abi.encode("authorizationState(address,bytes32)", payer, nonce)
    return bool(abi.numbers(await chain.call(network.token, asked))[0])


def has_moved(receipt: ChainReceipt, network: Network, due: Due) -> bool:
    """Whether a transaction used this authorization and moved its money.

    A token that does not revert on a used nonce leaves a receipt of success, and no such logs.
    """
    used = (USED, address_word(due.payer), due.nonce)
    moved = (abi.TRANSFER, address_word(due.payer), address_word(due.payee))
    ours = [log for log in receipt.logs if log.address.lower() == network.token.lower()]
    return (
        receipt.succeeded
        and any(log.topics == used for log in ours)
        and any(log.topics == moved and abi.numbers(log.data) == [due.units] for log in ours)
    )
