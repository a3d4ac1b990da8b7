"""The typed messages of a payment channel by x402 `batch-settlement`, and of our extension to it.

Types and domain follow specs/schemes/batch-settlement/scheme_batch_settlement_evm.md of
https://github.com/x402-foundation/x402.  `Order` belongs to our extension `on-delivery`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

from agentkit.keys.messages import Domain, address_word, keccak, typed_digest, word

ZERO_ADDRESS = "0x" + 40 * "0"
"""As `payer_authorizer`: the payer itself signs, which is a contract with EIP-1271."""


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """The terms of a channel, which never change; their digest is the channel's id.

    `payer_authorizer` signs vouchers, `receiver_authorizer` claims and refunds.
    `withdraw_delay`: the seconds that the receiver has left to claim once the payer withdraws.
    """

    TYPE: ClassVar[bytes] = keccak(
        b"ChannelConfig(address payer,address payerAuthorizer,address receiver,"
        b"address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
    )
    payer: str
    payer_authorizer: str
    receiver: str
    receiver_authorizer: str
    token: str
    withdraw_delay: int
    salt: bytes

    def words(self) -> tuple[bytes, ...]:
        """Return the members as the contract takes them, one word each."""
        return (
            address_word(self.payer),
            address_word(self.payer_authorizer),
            address_word(self.receiver),
            address_word(self.receiver_authorizer),
            address_word(self.token),
            word(self.withdraw_delay),
            self.salt,
        )

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(self.TYPE + b"".join(self.words()))

    def id(self, domain: Domain) -> bytes:
        """Return the channel's id in a domain: one contract on one chain."""
        return _channel_id(self, domain)


# Cached, because each payment on a channel comes with the channel's terms.
@lru_cache(maxsize=4096)
def _channel_id(config: ChannelConfig, domain: Domain) -> bytes:
    return typed_digest(domain, config)


@dataclass(frozen=True, slots=True)
class ChannelVoucher:
    """A payer's promise: on `channel` the receiver may claim up to `ceiling` base units in all."""

    TYPE: ClassVar[bytes] = keccak(b"Voucher(bytes32 channelId,uint128 maxClaimableAmount)")
    channel: bytes
    ceiling: int

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(self.TYPE + self.channel + word(self.ceiling))


@dataclass(frozen=True, slots=True)
class Refund:
    """A receiver's word that `amount` base units of a channel go back; each `nonce` counts once."""

    TYPE: ClassVar[bytes] = keccak(b"Refund(bytes32 channelId,uint256 nonce,uint128 amount)")
    channel: bytes
    nonce: int
    amount: int

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(self.TYPE + self.channel + word(self.nonce) + word(self.amount))


class Claimed(NamedTuple):
    """One row of a claim: `total` of a channel is claimed, under a voucher over `ceiling`."""

    channel: bytes
    ceiling: int
    total: int


@dataclass(frozen=True, slots=True)
class ClaimBatch:
    """A receiver's word for a batch of claims; `rows` are three words each, see `Claimed`."""

    TYPE: ClassVar[bytes] = keccak(
        b"ClaimBatch(ClaimEntry[] claims)"
        b"ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
    )
    ROW: ClassVar[bytes] = keccak(
        b"ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
    )
    rows: bytes

    @classmethod
    def of(cls, claims: Iterable[Claimed]) -> ClaimBatch:
        """Return the batch of these claims, in their order."""
        return cls(b"".join(c.channel + word(c.ceiling) + word(c.total) for c in claims))

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the rows; an array is the hash of its members'."""
        if len(self.rows) % 96:
            raise ValueError("a row of a claim has three words")
        rows = (self.rows[at : at + 96] for at in range(0, len(self.rows), 96))
        return keccak(self.TYPE + keccak(b"".join(keccak(self.ROW + row) for row in rows)))


@dataclass(frozen=True, slots=True)
class Order:
    """A payer's order on a channel that is paid on delivery: who asks, for what, for how much.

    `attempt` is the order's key, `request` the digest of what is asked for; `at_most` in base
    units.  It promises nothing: what was delivered is paid by a voucher.
    """

    TYPE: ClassVar[bytes] = keccak(
        b"Order(bytes32 channelId,bytes32 attempt,uint128 atMost,bytes32 request)"
    )
    channel: bytes
    attempt: bytes
    at_most: int
    request: bytes

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(self.TYPE + self.channel + self.attempt + word(self.at_most) + self.request)
