"""Calls of the contracts we use.

Every argument of ours is a static type of one word, so encoding is concatenation
(https://docs.soliditylang.org/en/latest/abi-spec.html).
"""

from __future__ import annotations

from functools import lru_cache

from agentkit.keys.messages import address_word, keccak, word


@lru_cache(maxsize=256)
def selector(signature: str) -> bytes:
    """Return the first four bytes of a call of `signature`."""
    return keccak(signature.encode())[:4]


@lru_cache(maxsize=256)
def topic(signature: str) -> bytes:
    """Return the first topic of an event of `signature`."""
    return keccak(signature.encode())


def encode(signature: str, *words: bytes | int | str) -> bytes:
    """Return call data: integers, 0x addresses or 32-byte words, in the order of the signature."""
    return selector(signature) + b"".join(as_word(value) for value in words)


def encode_bytes(signature: str, data: bytes) -> bytes:
    """Return call data of a function that takes one `bytes`."""
    padded = data.ljust(-(-len(data) // 32) * 32, b"\0")
    return selector(signature) + word(32) + word(len(data)) + padded


def text(data: bytes) -> str:
    """Return the one string of an answer; raises ValueError for anything else."""
    at = int.from_bytes(data[:32], "big")
    size = int.from_bytes(data[at : at + 32], "big")
    if at + 32 + size > len(data):
        raise ValueError("no string")
    return data[at + 32 : at + 32 + size].decode()


def as_word(value: bytes | int | str) -> bytes:
    """Return a value as one word."""
    if isinstance(value, int):
        return word(value)
    return address_word(value) if isinstance(value, str) else value.rjust(32, b"\0")


def vrs(signature: bytes) -> tuple[int, bytes, bytes]:
    """Return a signature (r, s, v) as contracts take it."""
    return signature[64], signature[:32], signature[32:64]


def numbers(data: bytes) -> list[int]:
    """Return the words of an answer or a log as unsigned integers."""
    return [int.from_bytes(data[n : n + 32], "big") for n in range(0, len(data) - 31, 32)]


MOVE = (
    "transferWithAuthorization"
    "(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
)
"""The call by which a token moves money at its owner's signature (EIP-3009)."""

TRANSFER = topic("Transfer(address,address,uint256)")
FUNDED = topic("Funded(bytes32,address,address,uint128,uint128)")
CLAIMED = topic("Claimed(bytes32,uint128,uint128,uint64,bytes32)")
CLOSED = topic("Closed(bytes32,uint128)")
OPENED = topic("Opened(bytes32,address,address,uint128,bytes32)")
SETTLED = topic("Settled(bytes32,uint8,uint128,uint128,bytes32)")
CLOSE_REQUESTED = topic("CloseRequested(bytes32,uint40)")
ADVANCED = topic("Advanced(address,bytes32,bytes32)")
