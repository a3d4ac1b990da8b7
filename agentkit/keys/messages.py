"""The messages that a key may sign, and their digests.

EIP-712 messages have only static one-word members, so their encoding is a concatenation of words
(https://eips.ethereum.org/EIPS/eip-712).  Data items follow ANS-104, with the deep hash that
implementations use: the encoded tags are one blob, not a list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, Protocol

import coincurve
from Crypto.Hash import keccak as _keccak

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Largest `s` of a canonical signature: half the order of secp256k1 (EIP-2)."""


def keccak(data: bytes) -> bytes:
    """Return Keccak-256, the hash of Ethereum."""
    return bytes(_keccak.new(digest_bits=256, data=data).digest())


def word(number: int) -> bytes:
    """Return a 32-byte big-endian word."""
    return number.to_bytes(32, "big")


def address_word(address: str) -> bytes:
    """Return a hex address as a 32-byte word."""
    return bytes(12) + bytes.fromhex(address.removeprefix("0x"))


@lru_cache(maxsize=1024)
def checksummed(address: str) -> str:
    """Return an address in the mixed case of EIP-55."""
    plain = address.lower().removeprefix("0x")
    digest = keccak(plain.encode()).hex()
    return "0x" + "".join(c.upper() if int(digest[i], 16) > 7 else c for i, c in enumerate(plain))


def payable(text: str) -> str:
    """Return an address that money can go to, checksummed; "" for any other text.

    Mixed case is a checksum and has to be right (EIP-55).  The address zero belongs to nobody.
    """
    digits = text[2:]
    if text[:2] != "0x" or len(digits) != 40 or set(digits) - set("0123456789abcdefABCDEF"):
        return ""
    address = checksummed(text)
    has_no_checksum = digits in (digits.lower(), digits.upper())
    if text != address and not has_no_checksum:
        return ""
    is_zero = int(digits, 16) == 0
    return "" if is_zero else address


@lru_cache(maxsize=1024)
def address_of(public_key: bytes) -> str:
    """Return the checksummed address of an uncompressed public key (65 bytes)."""
    return checksummed("0x" + keccak(public_key[1:])[-20:].hex())


def recover(digest: bytes, signature: bytes) -> str:
    """Return the address that signed `digest`, or "" for a signature that is not canonical.

    `signature` is r ‖ s ‖ v with v 27 or 28 and low s (EIP-2).  Other forms of a signature are
    refused, so that nobody can make a second one out of the first.
    """
    if len(signature) != 65 or signature[64] not in (27, 28):
        return ""
    if int.from_bytes(signature[32:64], "big") > HALF_ORDER:
        return ""
    recovery_id = signature[64] - 27
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([recovery_id]), digest, hasher=None
        )
    except ValueError:
        return ""
    return address_of(key.format(compressed=False))


# -- EIP-712 -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """The domain in which a typed message is valid: one contract on one chain (EIP-712).

    A domain without a version, or without a contract, has "" there.
    """

    name: str
    version: str
    chain_id: int
    contract: str

    @cached_property
    def separator(self) -> bytes:
        """The hash of the domain, which contracts return as `DOMAIN_SEPARATOR()`."""
        members = ["string name"]
        words = [keccak(self.name.encode())]
        if self.version:
            members.append("string version")
            words.append(keccak(self.version.encode()))
        members.append("uint256 chainId")
        words.append(word(self.chain_id))
        if self.contract:
            members.append("address verifyingContract")
            words.append(address_word(self.contract))
        kind = keccak(f"EIP712Domain({','.join(members)})".encode())
        return keccak(kind + b"".join(words))


class Typed(Protocol):
    """A message of EIP-712."""

    def struct_hash(self) -> bytes:
        """Return the hash of the message's type and fields, without its domain."""


def typed_digest(domain: Domain, message: Typed) -> bytes:
    """Return the digest that is signed for `message` in `domain` (EIP-712)."""
    return keccak(b"\x19\x01" + domain.separator + message.struct_hash())


@dataclass(frozen=True, slots=True)
class Voucher:
    """A payer's promise on a channel: `cumulative` base units for `tasks` tasks so far.

    `receipts_root` is the root over the deliveries that it pays; see `market.tree`.
    """

    TYPE: ClassVar[bytes] = keccak(
        b"Voucher(bytes32 channelId,uint128 cumulative,uint64 tasks,bytes32 receiptsRoot)"
    )
    channel: bytes
    cumulative: int
    tasks: int
    receipts_root: bytes = bytes(32)

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(
            self.TYPE + self.channel + word(self.cumulative) + word(self.tasks) + self.receipts_root
        )


@dataclass(frozen=True, slots=True)
class Release:
    """A payee's word that on a channel it claims nothing beyond `final_claimed` base units."""

    TYPE: ClassVar[bytes] = keccak(b"Release(bytes32 channelId,uint128 finalClaimed)")
    channel: bytes
    final_claimed: int

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(self.TYPE + self.channel + word(self.final_claimed))


@dataclass(frozen=True, slots=True)
class Quote:
    """A provider's terms for a task that is paid out of escrow; its digest is the job's id.

    `price` is the most that the task costs, in base units.  Times are in unix seconds, windows in
    seconds, `default_bps` in 1/10000.  The zero address as arbiter: nothing can be disputed.
    """

    TYPE: ClassVar[bytes] = keccak(
        b"Quote(address payer,address provider,address arbiter,address token,uint128 price,"
        b"uint40 deliverBy,uint40 judgeWindow,uint40 quoteExpiry,uint40 arbiterWindow,"
        b"uint16 defaultBps,bytes32 taskId,bytes32 specHash)"
    )
    payer: str
    provider: str
    arbiter: str
    token: str
    price: int
    deliver_by: int
    judge_window: int
    quote_expiry: int
    arbiter_window: int
    default_bps: int
    task_id: bytes
    spec_hash: bytes

    def words(self) -> tuple[bytes, ...]:
        """Return the members as the contract takes them, one word each."""
        return (
            address_word(self.payer),
            address_word(self.provider),
            address_word(self.arbiter),
            address_word(self.token),
            word(self.price),
            word(self.deliver_by),
            word(self.judge_window),
            word(self.quote_expiry),
            word(self.arbiter_window),
            word(self.default_bps),
            self.task_id,
            self.spec_hash,
        )

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(self.TYPE + b"".join(self.words()))


@dataclass(frozen=True, slots=True)
class Accept:
    """A party's agreement that a job in escrow settles with `pay` base units for the provider."""

    TYPE: ClassVar[bytes] = keccak(b"Accept(bytes32 jobId,uint128 pay,bytes32 resultHash)")
    job: bytes
    pay: int
    result_hash: bytes

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(self.TYPE + self.job + word(self.pay) + self.result_hash)


_VALID_AFTER = 0
"""Our authorizations are valid at once."""


@dataclass(frozen=True, slots=True)
class ReceiveAuthorization:
    """EIP-3009 ReceiveWithAuthorization: `payee` may draw `units` once, until `valid_before`.

    Only the payee can use it, so that nobody can move the money into a contract from outside the
    call that books it.
    """

    TYPE: ClassVar[bytes] = keccak(
        b"ReceiveWithAuthorization(address from,address to,uint256 value,"
        b"uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    )
    payer: str
    payee: str
    units: int
    valid_before: int
    nonce: bytes

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(
            self.TYPE
            + address_word(self.payer)
            + address_word(self.payee)
            + word(self.units)
            + word(_VALID_AFTER)
            + word(self.valid_before)
            + self.nonce
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """A provider node's statement: for `attempt` it delivered `result` at `price`.

    `price` in base units; `usage` the sha256 of what it counted.
    """

    TYPE: ClassVar[bytes] = keccak(
        b"Delivery(bytes32 attempt,bytes32 result,uint256 price,bytes32 usage)"
    )
    attempt: bytes
    result: bytes
    price: int
    usage: bytes

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(self.TYPE + self.attempt + self.result + word(self.price) + self.usage)


@dataclass(frozen=True, slots=True)
class TransferAuthorization:
    """EIP-3009 TransferWithAuthorization: anybody may move `units` from payer to payee, once.

    Between `valid_after` and `valid_before`, in unix seconds by the chain's clock.
    """

    TYPE: ClassVar[bytes] = keccak(
        b"TransferWithAuthorization(address from,address to,uint256 value,"
        b"uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    )
    payer: str
    payee: str
    units: int
    valid_before: int
    nonce: bytes
    valid_after: int = 0

    def struct_hash(self) -> bytes:
        """Return the hash of the type and the fields (EIP-712)."""
        return keccak(
            self.TYPE
            + address_word(self.payer)
            + address_word(self.payee)
            + word(self.units)
            + word(self.valid_after)
            + word(self.valid_before)
            + self.nonce
        )


# -- chain transactions --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UnsignedTransaction:
    """An EIP-1559 transaction before it is signed, without an access list; amounts in wei.

    `data` is the call.  Without `to` the transaction creates a contract, and `data` is its code.
    """

    chain_id: int
    nonce: int
    to: str
    data: bytes
    gas: int
    max_fee: int
    max_tip: int
    value: int = 0

    def unsigned(self) -> bytes:
        """Return the bytes whose hash is signed (EIP-1559)."""
        return self._encoded()

    def signed(self, signature: bytes) -> bytes:
        """Return the bytes that are sent; `signature` as `recover` takes it."""
        r = int.from_bytes(signature[:32])
        s = int.from_bytes(signature[32:64])
        y_parity = signature[64] - 27
        return self._encoded(y_parity, r, s)

    def _encoded(self, *signature: int) -> bytes:
        """Return the type byte and the RLP list of the fields, in the order of EIP-1559."""
        import rlp

        to = bytes.fromhex(self.to.removeprefix("0x"))
        if len(to) not in (0, 20):
            raise ValueError(f"{self.to!r} is not a valid address")
        access_list = ()
        fields = (
            self.chain_id,
            self.nonce,
            self.max_tip,
            self.max_fee,
            self.gas,
            to,
            self.value,
            self.data,
            access_list,
            *signature,
        )
        return b"\x02" + bytes(rlp.encode(fields))

    @classmethod
    def of(cls, raw: bytes) -> UnsignedTransaction:
        """Return the transaction in signed bytes of ours (EIP-2718 envelope of type 2)."""
        import rlp

        # The first byte is the type of the envelope.
        chain_id, nonce, max_tip, max_fee, gas, to, value, data, *_ = rlp.decode(raw[1:])
        return cls(
            chain_id=int.from_bytes(chain_id),
            nonce=int.from_bytes(nonce),
            to=checksummed("0x" + to.hex()) if to else "",
            data=bytes(data),
            gas=int.from_bytes(gas),
            max_fee=int.from_bytes(max_fee),
            max_tip=int.from_bytes(max_tip),
            value=int.from_bytes(value),
        )


# -- ANS-104 -------------------------------------------------------------------------------------


Nested = bytes | Sequence["Nested"]
"""Blobs in lists in lists, as Arweave hashes them."""


def deep_hash(value: Nested) -> bytes:
    """Return Arweave's deep hash (SHA-384) of a blob or of nested lists of blobs."""
    if isinstance(value, bytes):
        tag = hashlib.sha384(b"blob%d" % len(value)).digest()
        return hashlib.sha384(tag + hashlib.sha384(value).digest()).digest()
    total = hashlib.sha384(b"list%d" % len(value)).digest()
    for part in value:
        total = hashlib.sha384(total + deep_hash(part)).digest()
    return total


@dataclass(frozen=True, slots=True)
class ItemMessage:
    """The fields that the signature of an ANS-104 data item covers; `tags` as Avro bytes."""

    owner: bytes
    target: bytes
    anchor: bytes
    tags: bytes
    data: bytes
    signature_type: int = 3

    def deep_hash(self) -> bytes:
        """Return the deep hash of the item's fields, in the order of ANS-104."""
        version = b"1"
        signature_type = str(self.signature_type).encode()
        fields = [self.owner, self.target, self.anchor, self.tags, self.data]
        return deep_hash([b"dataitem", version, signature_type, *fields])

    def digest(self) -> bytes:
        """Return what signature type 3 signs: the deep hash as an EIP-191 personal message."""
        payload = self.deep_hash()
        return keccak(b"\x19Ethereum Signed Message:\n%d" % len(payload) + payload)
