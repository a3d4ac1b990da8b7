"""The tags of data items, and their Avro encoding.

ANS-104 prescribes an array of records of two strings.  The same limits hold for writing and for
reading.
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
"""Bytes of all encoded tags of an item.  ANS-104 has no such limit, but gateways have."""


def encode_tags(tags: Sequence[tuple[str, str]]) -> bytes:
    """Return the Avro encoding of tags, b"" for no tags; raises StateError above a limit."""
    if not tags:
        return b""
    if len(tags) > MAX_TAGS:
        raise StateError(f"an item has at most {MAX_TAGS} tags, not {len(tags)}")
    pairs = (_encode_text(name, MAX_NAME) + _encode_text(value, MAX_VALUE) for name, value in tags)
    # An Avro array is blocks of a count and so many records; the count 0 ends it.
    encoded = _encode_number(len(tags)) + b"".join(pairs) + _encode_number(0)
    if len(encoded) > MAX_ENCODED:
        raise StateError(f"an item's tags take at most {MAX_ENCODED} bytes, not {len(encoded)}")
    return encoded


def decode_tags(encoded: bytes, count: int) -> Tags:
    """Decode `count` tags; raises StateCorrupt if the bytes contain anything else."""
    if count > MAX_TAGS or len(encoded) > MAX_ENCODED:
        raise StateCorrupt(f"{count} tags in {len(encoded)} bytes are more than an item may have")
    reader = ByteReader(encoded)
    tags = tuple(_read_blocks(reader)) if encoded else ()
    if len(tags) != count or reader.remaining:
        raise StateCorrupt(f"{count} tags are announced, {len(tags)} are there")
    return tags


def _read_blocks(reader: ByteReader) -> Iterable[tuple[str, str]]:
    """Yield the tags of an Avro array, block by block."""
    while record_count := reader.varint():
        if record_count < 0:
            reader.varint()  # a negative count is followed by the block's length in bytes
        # A huge count cannot make this loop long: no field is empty, so the bytes run out.
        for _ in range(abs(record_count)):
            yield _read_text(reader, MAX_NAME), _read_text(reader, MAX_VALUE)


def _read_text(reader: ByteReader, limit: int) -> str:
    """Read a text of 1 to `limit` bytes; raises StateCorrupt."""
    size = reader.varint()
    if not 0 < size <= limit:
        raise StateCorrupt(f"a tag holds {size} bytes where 1 to {limit} are allowed")
    try:
        return reader.take(size).decode()
    except UnicodeDecodeError as error:
        raise StateCorrupt("a tag is not UTF-8") from error


def _encode_text(text: str, limit: int) -> bytes:
    """Return a text of 1 to `limit` bytes with its length; raises StateError."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise StateError(f"{text[:24]!r} cannot be written as UTF-8") from error
    if not 0 < len(data) <= limit:
        raise StateError(f"{text[:24]!r} has {len(data)} bytes where 1 to {limit} are allowed")
    return _encode_number(len(data)) + data


def _encode_number(number: int) -> bytes:
    """Return a number that is not negative in Avro's coding; see `ByteReader.varint`."""
    remaining = number << 1  # zig-zag: even numbers are not negative
    encoded = bytearray()
    while remaining > 0x7F:
        encoded.append(remaining & 0x7F | 0x80)
        remaining >>= 7
    encoded.append(remaining)
    return bytes(encoded)
