"""Channels of x402 `batch-settlement` on a chain without blocks, and what is signed for them.

Digests are computed here once more, by hand, because the SDK's way takes a millisecond each; that
both agree is a test of its own (unit/payments/test_batch_settlement.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from coincurve import PrivateKey

from agentkit.keys.messages import address_word, keccak, word
from agentkit.keys.signer import KeySigner
from agentkit.payments.contracts import CANONICAL
from support.evm import Deployed, Evm, odd_token

KEYS = {number: number.to_bytes(32, "big") for number in range(1, 8)}
DEPLOYER, PAYER, RECEIVER, AUTHORIZER, SESSION, STRANGER, OWNER = map(KeySigner, KEYS.values())
KEY_OF = {KeySigner(key).address: key for key in KEYS.values()}

MINTED = 10**12
DELAY = 900
DAY = 86400
FAR = 2**40
"""A time that does not come while a test runs."""

CONFIG_TYPE = keccak(
    b"ChannelConfig(address payer,address payerAuthorizer,address receiver,"
    b"address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
)
VOUCHER_TYPE = keccak(b"Voucher(bytes32 channelId,uint128 maxClaimableAmount)")
REFUND_TYPE = keccak(b"Refund(bytes32 channelId,uint256 nonce,uint128 amount)")
ENTRY = b"ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
ENTRY_TYPE = keccak(ENTRY)
BATCH_TYPE = keccak(b"ClaimBatch(ClaimEntry[] claims)" + ENTRY)
RECEIVE_TYPE = keccak(
    b"ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,"
    b"uint256 validBefore,bytes32 nonce)"
)
DOMAIN_TYPE = keccak(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
ZERO = "0x" + "00" * 20
COLLECTOR = CANONICAL["Erc3009DepositCollector"]

Claim = tuple[Any, bytes, int]
"""A row of a claim: (configuration, ceiling), the voucher's signature, the total."""


def sign(signer: KeySigner, digest: bytes) -> bytes:
    """Return the signature of a digest by one of the keys here."""
    raw = PrivateKey(KEY_OF[signer.address]).sign_recoverable(digest, hasher=None)
    return raw[:64] + bytes([27 + raw[64]])


def separator(name: str, contract: str, chain_id: int) -> bytes:
    """Return the hash of an EIP-712 domain of version 1."""
    names = keccak(name.encode()) + keccak(b"1")
    return keccak(DOMAIN_TYPE + names + word(chain_id) + address_word(contract))


def typed(domain: bytes, message: bytes) -> bytes:
    """Return what is signed: the digest of an encoded struct in a domain (EIP-712)."""
    return keccak(b"\x19\x01" + domain + keccak(message))


@dataclass(frozen=True)
class Scene:
    """A payer with tokens, and one of its channels."""

    evm: Evm
    token: Deployed
    channels: Deployed
    payer: str = PAYER.address
    payer_authorizer: str = SESSION.address
    receiver: str = RECEIVER.address
    receiver_authorizer: str = AUTHORIZER.address
    delay: int = DELAY
    salt: bytes = bytes(32)

    @classmethod
    def new(cls, evm: Evm | None = None, way: str = "") -> Scene:
        """A channel in the test token, or in an odd token that does `way`."""
        evm = evm or Evm()
        token = odd_token(evm, way, DEPLOYER) if way else Deployed.new(evm, "TestUSD", DEPLOYER)
        token.do(DEPLOYER, "mint", PAYER.address, MINTED)
        return cls(evm, token, Deployed.canonical(evm, "BatchSettlement"))

    def other(self, number: int) -> Scene:
        """Another channel of the same parties."""
        return replace(self, salt=word(number))

    @property
    def config(self) -> tuple[Any, ...]:
        parties = (self.payer, self.payer_authorizer, self.receiver, self.receiver_authorizer)
        return (*parties, self.token.address, self.delay, self.salt)

    @property
    def domain(self) -> bytes:
        return separator("x402 Batch Settlement", self.channels.address, self.evm.chain_id)

    @property
    def id(self) -> bytes:
        *addresses, delay, salt = self.config
        encoded = b"".join(map(address_word, addresses))
        return typed(self.domain, CONFIG_TYPE + encoded + word(delay) + salt)

    # -- what is signed --------------------------------------------------------------------------

    def voucher(self, ceiling: int, signer: KeySigner = SESSION) -> bytes:
        return sign(signer, typed(self.domain, VOUCHER_TYPE + self.id + word(ceiling)))

    def row(self, total: int, ceiling: int | None = None, signer: KeySigner = SESSION) -> Claim:
        """A claim of `total` by a voucher, whose ceiling is the same if it is not given."""
        ceiling = total if ceiling is None else ceiling
        return (self.config, ceiling), self.voucher(ceiling, signer), total

    def batch(self, rows: Sequence[tuple[Scene, Claim]], signer: KeySigner = AUTHORIZER) -> bytes:
        """The receiverAuthorizer's signature over the rows of a claim."""
        entries = b"".join(
            keccak(ENTRY_TYPE + scene.id + word(ceiling) + word(total))
            for scene, ((_, ceiling), _, total) in rows
        )
        return sign(signer, typed(self.domain, BATCH_TYPE + keccak(entries)))

    def refund_word(self, amount: int, nonce: int, signer: KeySigner = AUTHORIZER) -> bytes:
        message = REFUND_TYPE + self.id + word(nonce) + word(amount)
        return sign(signer, typed(self.domain, message))

    def authorization(
        self, amount: int, salt: int, signer: KeySigner = PAYER, until: int = FAR
    ) -> bytes:
        """The collector's data: an ERC-3009 authorization of the payer's, bound to the channel."""
        domain = separator("USD Coin", self.token.address, self.evm.chain_id)
        parties = address_word(self.payer) + address_word(COLLECTOR)
        nonce = keccak(self.id + word(salt))
        terms = word(amount) + word(0) + word(until) + nonce
        signature = sign(signer, typed(domain, RECEIVE_TYPE + parties + terms))
        head = word(0) + word(until) + word(salt) + word(128)
        return head + word(len(signature)) + signature + bytes(-len(signature) % 32)

    # -- what is done ----------------------------------------------------------------------------

    def refusal(self, who: KeySigner, name: str, *arguments: Any) -> str:
        """Do it with this channel; returns why it was refused, "" when it was done."""
        return self.channels.refusal(who, name, self.config, *arguments)

    def deposit(self, amount: int, salt: int = 1, **how: Any) -> str:
        data = self.authorization(amount, salt, **how)
        return self.refusal(STRANGER, "deposit", amount, COLLECTOR, data)

    def claim(self, total: int, ceiling: int | None = None, **how: Any) -> str:
        """Claim as the receiver does."""
        return self.channels.refusal(RECEIVER, "claim", [self.row(total, ceiling, **how)])

    def settle(self) -> str:
        return self.channels.refusal(STRANGER, "settle", self.receiver, self.token.address)

    # -- what is seen ----------------------------------------------------------------------------

    def state(self) -> tuple[int, int]:
        """Balance and totalClaimed."""
        balance, claimed = self.channels.do(STRANGER, "channels", self.id)
        return balance, claimed

    def pending(self) -> tuple[int, int]:
        """Amount and beginning of a withdrawal."""
        amount, initiated = self.channels.do(STRANGER, "pendingWithdrawals", self.id)
        return amount, initiated

    def holdings(self) -> tuple[int, int, int]:
        """What the contract, the payer and the receiver hold."""
        held, payer, receiver = (
            int(self.token.do(STRANGER, "balanceOf", one))
            for one in (self.channels.address, self.payer, self.receiver)
        )
        return held, payer, receiver
