"""Reads from the token whether a payment arrived: its state and logs are the only proof."""

from __future__ import annotations

from dataclasses import dataclass

from agentkit.keys.messages import address_word
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.market.x402 import Authorization
from agentkit.payments import abi

USED = abi.topic("AuthorizationUsed(address,bytes32)")
"""The event of EIP-3009; its topics are the payer and the nonce."""


@dataclass(frozen=True, slots=True)
class ExpectedTransfer:
    """A transfer that an EIP-3009 authorization allows once; `units` in the token's base unit."""

    payer: str
    payee: str
    units: int
    nonce: bytes

    @classmethod
    def of(cls, authorization: Authorization) -> ExpectedTransfer:
        """Return the transfer that an x402 authorization allows."""
        return cls(
            payer=authorization.sender,
            payee=authorization.to,
            units=int(authorization.value),
            nonce=bytes.fromhex(authorization.nonce[2:]),
        )


async def is_used(chain: ChainClient, network: Network, payer: str, nonce: bytes) -> bool:
    """Return whether the token says that an authorization was used or canceled (EIP-3009)."""
    data = abi.encode("authorizationState(address,bytes32)", payer, nonce)
    return bool(abi.number(await chain.call(network.token, data)))


def has_moved(receipt: ChainReceipt, network: Network, transfer: ExpectedTransfer) -> bool:
    """Return whether a transaction used an authorization and moved its money.

    Both logs count, because a token that does not revert on a used nonce leaves a receipt of
    success without them.
    """
    payer = address_word(transfer.payer)
    used_topics = (USED, payer, transfer.nonce)
    moved_topics = (abi.TRANSFER, payer, address_word(transfer.payee))
    logs = [log for log in receipt.logs if log.address.lower() == network.token.lower()]
    is_authorization_used = any(log.topics == used_topics for log in logs)
    is_money_moved = any(
        log.topics == moved_topics and abi.numbers(log.data) == [transfer.units] for log in logs
    )
    return receipt.succeeded and is_authorization_used and is_money_moved
