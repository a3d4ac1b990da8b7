"""The contract of x402 `batch-settlement`: its calls, what it answers, and what it logs.

The ABI is the one in the x402 SDK (`x402.mechanisms.evm.batch_settlement.abi`); events are as the
scheme's notes for implementers name them.  The contract has one address on all chains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from agentkit.errors import ProtocolBroken, SettlementFailed
from agentkit.keys.channel_messages import ChannelConfig, Claimed
from agentkit.keys.messages import checksummed, keccak, word
from agentkit.market.batch_settlement import (
    MAX_UNITS,
    ChannelState,
    ClaimRow,
    ClaimVoucher,
    Config,
)
from agentkit.market.chain import SETTLEMENT, ChainClient, ChainReceipt
from agentkit.payments import abi

CONFIG = "(address,address,address,address,address,uint40,bytes32)"
"""The contract's struct `ChannelConfig`, in the notation of function signatures."""

CLAIM_ROWS = f"(({CONFIG},uint128),bytes,uint128)[]"
"""The contract's array of `VoucherClaim`."""

TIMES = 2**40
"""How many times the contract's uint40 has; a larger number ends whoever shows it as one."""

DEPOSITED = abi.topic("Deposited(bytes32,address,uint128,uint128)")
CLAIMED = abi.topic("Claimed(bytes32,address,uint128,uint128)")
SETTLED = abi.topic("Settled(address,address,address,uint128)")
REFUNDED = abi.topic("Refunded(bytes32,address,uint128)")
WITHDRAW_INITIATED = abi.topic("WithdrawInitiated(bytes32,address,uint128,uint40)")
WITHDRAW_FINALIZED = abi.topic("WithdrawFinalized(bytes32,address,uint128)")


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of `total` units on a channel, in all, under a voucher over `ceiling`."""

    config: ChannelConfig
    channel: bytes
    ceiling: int
    signature: bytes
    total: int

    @property
    def row(self) -> Claimed:
        """The row of this claim in what the receiver's authorizer signs."""
        return Claimed(self.channel, self.ceiling, self.total)

    def wire(self) -> ClaimRow:
        """Return the claim as a facilitator takes it."""
        return ClaimRow(
            voucher=ClaimVoucher(
                channel=Config.of(self.config), max_claimable_amount=str(self.ceiling)
            ),
            signature="0x" + self.signature.hex(),
            total_claimed=str(self.total),
        )


# -- calls ---------------------------------------------------------------------------------------


def deposit_call(config: ChannelConfig, units: int, collector: str, data: bytes) -> bytes:
    """Return the call by which `collector` draws a deposit; `data` is the payer's signature."""
    types = (CONFIG, "uint128", "address", "bytes")
    return _call("deposit", types, _struct(config), units, collector, data)


def config_in(data: bytes) -> ChannelConfig:
    """Return the terms in the data of a `deposit` call; raises ProtocolBroken for another call."""
    from eth_abi.abi import decode  # slow to import, and only a search needs it
    from eth_abi.exceptions import DecodingError

    types = (CONFIG, "uint128", "address", "bytes")
    if data[: abi.SELECTOR] != abi.selector(f"deposit({','.join(types)})"):
        raise ProtocolBroken("this is no call that fills a channel")
    try:
        terms = decode(list(types), data[abi.SELECTOR :])[0]
    except DecodingError as error:
        raise ProtocolBroken("a call that fills a channel cannot be read") from error
    payer, payer_authorizer, receiver, receiver_authorizer, token = map(checksummed, terms[:5])
    return ChannelConfig(
        payer=payer,
        payer_authorizer=payer_authorizer,
        receiver=receiver,
        receiver_authorizer=receiver_authorizer,
        token=token,
        withdraw_delay=terms[5],
        salt=terms[6],
    )


def claim_call(claims: Sequence[Claim], signature: bytes) -> bytes:
    """Return the call that claims with the authorizer's `signature`; anybody may send it."""
    return _call("claimWithSignature", (CLAIM_ROWS, "bytes"), _rows(claims), signature)


def claim_digest_call(claims: Sequence[Claim]) -> bytes:
    """Return the call that asks what the authorizer signs for claims; it changes nothing."""
    return _call("getClaimBatchDigest", (CLAIM_ROWS,), _rows(claims))


def settle_call(receiver: str, token: str) -> bytes:
    """Return the call that moves to a receiver all that was claimed for it."""
    return abi.encode("settle(address,address)", receiver, token)


def refund_call(config: ChannelConfig, units: int, nonce: int, signature: bytes) -> bytes:
    """Return the call that gives a channel's rest back with the authorizer's `signature`."""
    types = (CONFIG, "uint128", "uint256", "bytes")
    return _call("refundWithSignature", types, _struct(config), units, nonce, signature)


def withdraw_call(config: ChannelConfig, units: int) -> bytes:
    """Return the call by which a payer asks for `units` back without the receiver."""
    return abi.encode(f"initiateWithdraw({CONFIG},uint128)", *config.words(), units)


def finish_withdraw_call(config: ChannelConfig) -> bytes:
    """Return the call that ends a withdrawal once its delay has passed."""
    return abi.encode(f"finalizeWithdraw({CONFIG})", *config.words())


def all_calls(calls: Sequence[bytes]) -> bytes:
    """Return one call that does several, in order, all or none."""
    return calls[0] if len(calls) == 1 else _call("multicall", ("bytes[]",), list(calls))


def erc3009_nonce(channel: bytes, salt: int) -> bytes:
    """Return the EIP-3009 nonce of a deposit: it binds the signature to the channel."""
    return keccak(channel + word(salt))


def erc3009_data(valid_after: int, valid_before: int, salt: int, signature: bytes) -> bytes:
    """Return what the ERC-3009 collector draws a deposit with."""
    types = ("uint256", "uint256", "uint256", "bytes")
    return _encode(types, valid_after, valid_before, salt, signature)


def permit2_data(nonce: int, deadline: int, signature: bytes) -> bytes:
    """Return what the Permit2 collector draws a deposit with, without an EIP-2612 permit."""
    return _encode(("uint256", "uint256", "bytes", "bytes"), nonce, deadline, signature, b"")


def _struct(config: ChannelConfig) -> tuple[str | int | bytes, ...]:
    return (
        config.payer,
        config.payer_authorizer,
        config.receiver,
        config.receiver_authorizer,
        config.token,
        config.withdraw_delay,
        config.salt,
    )


def _rows(claims: Sequence[Claim]) -> list[object]:
    return [((_struct(c.config), c.ceiling), c.signature, c.total) for c in claims]


def _call(function: str, types: Sequence[str], *values: object) -> bytes:
    return abi.selector(f"{function}({','.join(types)})") + _encode(types, *values)


def _encode(types: Sequence[str], *values: object) -> bytes:
    from eth_abi.abi import encode  # slow to import, and only claims and deposits need it

    return bytes(encode(list(types), list(values)))


# -- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OnChain:
    """A channel as the contract has it, in base units.

    `withdrawing` is what its payer has asked back, at `withdraw_requested_at` in unix seconds.
    """

    balance: int
    total_claimed: int
    withdrawing: int
    withdraw_requested_at: int
    refund_nonce: int

    @property
    def unclaimed(self) -> int:
        """What may still be claimed, refunded or withdrawn."""
        return self.balance - self.total_claimed

    def wire(self, channel: bytes, charged: int | None = None) -> ChannelState:
        """Return the channel as it travels; `charged` is what its seller has charged in all."""
        return ChannelState(
            channel_id="0x" + channel.hex(),
            balance=str(self.balance),
            total_claimed=str(self.total_claimed),
            withdraw_requested_at=self.withdraw_requested_at,
            refund_nonce=str(self.refund_nonce),
            charged_cumulative_amount=None if charged is None else str(charged),
        )


async def channel_on(chain: ChainClient, channel: bytes) -> OnChain:
    """Return a channel as the contract has it now, all zero for one that it does not know.

    Raises StoreUnavailable, and ProtocolBroken for an answer with other words.
    """
    # The balance is read last.  If a block is made between the reads, money that has just gone
    # back is missing in it, and is not also taken for free because no refund is pending any more.
    pending, nonce = await asyncio.gather(
        _read(chain, "pendingWithdrawals(bytes32)", channel, words=2),
        _read(chain, "refundNonce(bytes32)", channel, words=1),
    )
    balance, claimed = await _read(chain, "channels(bytes32)", channel, words=2)
    withdrawing, requested_at = pending
    fits = max(balance, withdrawing) <= MAX_UNITS and requested_at < TIMES
    if not fits or claimed > balance:
        raise ProtocolBroken("the chain shows a channel that cannot be")
    return OnChain(balance, claimed, withdrawing, requested_at, nonce[0])


async def unsettled_on(chain: ChainClient, receiver: str, token: str) -> tuple[int, int]:
    """Return (claimed, settled) of a receiver in a token, in base units."""
    data = abi.encode("receivers(address,address)", receiver, token)
    claimed, settled = abi.exactly(2, await chain.call(SETTLEMENT, data))
    return claimed, settled


async def _read(chain: ChainClient, function: str, channel: bytes, *, words: int) -> list[int]:
    return abi.exactly(words, await chain.call(SETTLEMENT, abi.encode(function, channel)))


def logged(receipt: ChainReceipt, topic: bytes, subject: bytes) -> list[list[int]]:
    """Return the numbers in the contract's logs of one event about one subject, in order.

    `subject` is the event's first indexed field: a channel's id, or a receiver as a word.  Any
    contract can write a log with the same topics, so only those of ours count.
    """
    if not receipt.succeeded:
        return []
    return [
        abi.numbers(log.data)
        for log in receipt.logs
        if log.address.lower() == SETTLEMENT.lower() and log.topics[:2] == (topic, subject)
    ]


VALID_SIGNATURE = bytes.fromhex("1626ba7e")
"""What a contract answers that takes a signature as its own (EIP-1271)."""


async def is_signed_by_contract(
    chain: ChainClient, wallet: str, digest: bytes, signature: bytes
) -> bool:
    """Return whether a wallet that is a contract takes a signature as its own (EIP-1271)."""
    call = _call("isValidSignature", ("bytes32", "bytes"), digest, signature)
    try:
        answer = await chain.call(wallet, call)
    except SettlementFailed:
        return False  # it reverts, or there is no contract
    return answer[:4] == VALID_SIGNATURE and len(answer) == abi.WORD
