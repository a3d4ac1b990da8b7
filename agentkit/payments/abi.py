"""Encodes calls of the contracts we use, and decodes their answers and logs.

Nearly every argument of ours is a static type of one word, so its encoding is concatenation
(https://docs.soliditylang.org/en/latest/abi-spec.html).
"""

from __future__ import annotations

from functools import lru_cache

from agentkit.errors import ProtocolBroken
from agentkit.keys.messages import address_word, checksummed, keccak, word

WORD = 32
"""Bytes of a word."""

SELECTOR = 4
"""Bytes at the start of a call that name the function."""

ADDRESS_PADDING = 12
"""Zero bytes before the address in its word."""


@lru_cache(maxsize=256)
def selector(signature: str) -> bytes:
    """Return the first four bytes of a call of `signature`."""
    return keccak(signature.encode())[:SELECTOR]


@lru_cache(maxsize=256)
def topic(signature: str) -> bytes:
    """Return the first topic of an event of `signature`."""
    return keccak(signature.encode())


# -- encoding ------------------------------------------------------------------------------------


def encode(signature: str, *words: bytes | int | str) -> bytes:
    """Return call data: integers, 0x addresses or 32-byte words, in the order of the signature."""
    return selector(signature) + b"".join(as_word(value) for value in words)


def encode_bytes(signature: str, data: bytes) -> bytes:
    """Return call data of a function that takes one `bytes`: its offset, length and content."""
    whole_words = -(-len(data) // WORD)
    padded = data.ljust(whole_words * WORD, b"\0")
    return selector(signature) + word(WORD) + word(len(data)) + padded


def as_word(value: bytes | int | str) -> bytes:
    """Return an integer, a 0x address or bytes as one word."""
    if isinstance(value, int):
        return word(value)
    if isinstance(value, str):
        return address_word(value)
    return value.rjust(WORD, b"\0")


def vrs(signature: bytes) -> tuple[int, bytes, bytes]:
    """Return a signature (r, s, v) in the order in which contracts take it."""
    v = signature[2 * WORD]
    r = signature[:WORD]
    s = signature[WORD : 2 * WORD]
    return v, r, s


# -- decoding ------------------------------------------------------------------------------------


def split_words(data: bytes) -> list[bytes]:
    """Return the whole words of an answer, a log or a call's arguments."""
    return [data[at : at + WORD] for at in range(0, len(data) - WORD + 1, WORD)]


def numbers(data: bytes) -> list[int]:
    """Return the words of an answer or a log as unsigned integers."""
    return [int.from_bytes(item, "big") for item in split_words(data)]


def exactly(count: int, data: bytes) -> list[int]:
    """Return the `count` words of an answer or a log as unsigned integers.

    A node may answer anything, also nothing at all.  Raises ProtocolBroken.
    """
    words = numbers(data)
    if len(words) != count:
        raise ProtocolBroken(
            f"the chain answers with {len(words)} words, and {count} are expected",
            hint="run `agentkit doctor`, or ask another node: set chain.rpc in agentkit.toml",
        )
    return words


def number(data: bytes) -> int:
    """Return the one word of an answer or a log; raises ProtocolBroken."""
    return exactly(1, data)[0]


def address_in(data: bytes) -> str:
    """Return the address in a word, checksummed."""
    return checksummed("0x" + data[ADDRESS_PADDING:].hex())


def join_signature(v: bytes, r: bytes, s: bytes) -> bytes:
    """Return three words as a signature (r, s, v); the opposite of `vrs`."""
    return r + s + v[-1:]


def text(data: bytes) -> str:
    """Return the one string of an answer; raises ValueError for anything else.

    A string is encoded as its offset, and there its length in bytes and its content.
    """
    offset = int.from_bytes(data[:WORD], "big")
    start = offset + WORD
    size = int.from_bytes(data[offset:start], "big")
    if start + size > len(data):
        raise ValueError("no string")
    return data[start : start + size].decode()


# -- functions and events ------------------------------------------------------------------------

MOVE = (
    "transferWithAuthorization"
    "(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
)
"""The call by which a token moves money by its owner's signature (EIP-3009)."""

TRANSFER = topic("Transfer(address,address,uint256)")
FUNDED = topic("Funded(bytes32,address,address,uint128,uint128)")
CLAIMED = topic("Claimed(bytes32,uint128,uint128,uint64,bytes32)")
CLOSED = topic("Closed(bytes32,uint128)")
OPENED = topic("Opened(bytes32,address,address,uint128,bytes32)")
SETTLED = topic("Settled(bytes32,uint8,uint128,uint128,bytes32)")
CLOSE_REQUESTED = topic("CloseRequested(bytes32,uint40)")
ADVANCED = topic("Advanced(address,bytes32,bytes32)")
