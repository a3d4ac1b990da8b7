"""The tags of data items, and their Avro encoding.

An array of records of two strings, as ANS-104 prescribes.  Its limits hold both ways: what we
would not write we do not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from agentkit.errors import StateCorrupt, StateError
from agentkit.memory.arweave.byte_reader import ByteReader

Tags: TypeAlias = tuple[tuple[str, str], ...]

MAX_TAGS = 128
MAX_NAME = 1024
"""Bytes of a tag's name."""
MAX_VALUE = 3072
"""Bytes of a tag's value."""
MAX_ENCODED = 4096
"""Bytes of all tags of an item, encoded; the written standard has no such limit, gateways do."""


def encode_tags(tags: Sequence[tuple[str, str]]) -> bytes:
    """Return the Avro encoding, nothing for no tags; raises StateError above a limit."""
    if not tags:
        return b""
    if len(tags) > MAX_TAGS:
        raise StateError(f"an item has at most {MAX_TAGS} tags, not {len(tags)}")
    pairs = (_field(name, MAX_NAME) + _field(value, MAX_VALUE) for name, value in tags)
    encoded = _zigzag(len(tags)) + b"".join(pairs) + _zigzag(0)
    if len(encoded) > MAX_ENCODED:
        raise StateError(f"an item's tags take at most {MAX_ENCODED} bytes, not {len(encoded)}")
    return encoded


def decode_tags(encoded: bytes, count: int) -> Tags:
    """Read `count` tags; raises StateCorrupt when the bytes hold anything else."""
    if count > MAX_TAGS or len(encoded) > MAX_ENCODED:
        raise StateCorrupt(f"{count} tags in {len(encoded)} bytes are more than an item may have")
    cursor = ByteReader(encoded)
    tags = tuple(_blocks(cursor)) if encoded else ()
    if len(tags) != count or cursor.left:
        raise StateCorrupt(f"{count} tags are announced, {len(tags)} are there")
    return tags


def _blocks(cursor: ByteReader) -> Iterable[tuple[str, str]]:
    while size := cursor.varint():
        if size < 0:
            cursor.varint()  # a negative count is followed by the block's length in bytes
        for _ in range(abs(size)):  # ends with the bytes at the latest: no field is empty
            yield _read(cursor, MAX_NAME), _read(cursor, MAX_VALUE)


def _read(cursor: ByteReader, limit: int) -> str:
    size = cursor.varint()
    if not 0 < size <= limit:
        raise StateCorrupt(f"a tag holds {size} bytes where 1 to {limit} are allowed")
    try:
        return cursor.take(size).decode()
    except UnicodeDecodeError as error:
        raise StateCorrupt("a tag is not UTF-8") from error


def _field(text: str, limit: int) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise StateError(f"{text[:24]!r} cannot be written as UTF-8") from error
    if not 0 < len(data) <= limit:
        raise StateError(f"{text[:24]!r} has {len(data)} bytes where 1 to {limit} are allowed")
    return _zigzag(len(data)) + data


def _zigzag(count: int) -> bytes:
    rest, out = count << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)
