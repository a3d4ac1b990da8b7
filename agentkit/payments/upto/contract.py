"""Permit2 and the proxy of x402 `upto`: the calls that settle, and what the chain shows of them."""

from __future__ import annotations

from agentkit.keys.messages import address_word, word
from agentkit.keys.permit2_messages import PERMIT2, UptoPermit
from agentkit.market.chain import ChainClient, ChainReceipt, Network
from agentkit.payments import abi

SETTLE = (
    "settle(((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)"
)
"""Moves an amount under a permit; its nine words come before the place of the signature."""

SETTLE_WITH_PERMIT = SETTLE.replace(
    "settle(", "settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),"
)
"""The same after a permit by EIP-2612, whose five words come first."""

_PERMIT_WORDS = 5
_HEAD_WORDS = 10


def settle_call(permit: UptoPermit, units: int, payer: str, signature: bytes) -> bytes:
    """Return the proxy call that moves `units` of what a payer has permitted."""
    whole_words = -(-len(signature) // abi.WORD)
    tail = word(len(signature)) + signature.ljust(whole_words * abi.WORD, b"\0")
    return _settle_head(permit, units, payer) + word(_HEAD_WORDS * abi.WORD) + tail


def _settle_head(permit: UptoPermit, units: int, payer: str) -> bytes:
    """Return the proxy call up to the place of the signature."""
    words = (
        address_word(permit.token),
        word(permit.units),
        word(permit.nonce),
        word(permit.deadline),
        word(units),
        address_word(payer),
        address_word(permit.payee),
        address_word(permit.facilitator),
        word(permit.valid_after),
    )
    return abi.selector(SETTLE) + b"".join(words)


def is_settle_call(data: bytes, permit: UptoPermit, units: int, payer: str) -> bool:
    """Return whether the data of a call of the proxy settles a permit with `units`.

    Each word has to be in its place: a payer chooses its nonce, and could choose a number that
    stands in the calls of other payments as well.
    """
    with_permit = abi.selector(SETTLE_WITH_PERMIT)
    if data.startswith(with_permit):
        data = abi.selector(SETTLE) + data[abi.SELECTOR + _PERMIT_WORDS * abi.WORD :]
    return data.startswith(_settle_head(permit, units, payer))


async def allowance(chain: ChainClient, network: Network, payer: str) -> int:
    """Return how many units of a payer's tokens Permit2 may move (ERC-20)."""
    data = abi.encode("allowance(address,address)", payer, PERMIT2)
    return abi.number(await chain.call(network.token, data))


async def is_used(chain: ChainClient, payer: str, nonce: int) -> bool:
    """Return whether Permit2 has taken a nonce of a payer, or the payer has canceled it.

    Nonces are bits in words of 256, so that they can be used in any order.
    """
    data = abi.encode("nonceBitmap(address,uint256)", payer, nonce >> 8)
    bits = abi.number(await chain.call(PERMIT2, data))
    return bool(bits >> (nonce & 255) & 1)


def has_moved(receipt: ChainReceipt, network: Network, payer: str, payee: str, units: int) -> bool:
    """Return whether a transaction moved `units` of the network's currency to a payee."""
    topics = (abi.TRANSFER, address_word(payer), address_word(payee))
    return receipt.succeeded and any(
        log.topics == topics and abi.numbers(log.data) == [units]
        for log in receipt.logs
        if log.address.lower() == network.token.lower()
    )
