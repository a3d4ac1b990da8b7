"""Numbered messages between a process and its child: a length in four bytes, then a JSON object.

Every request carries an id that nobody can guess, and its answer the same one.  So an answer can
never be taken for that of another request, whatever a child wrote before.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from agentkit import strict_json

HEADER = struct.Struct(">I")
MAX_REQUEST = 256 << 20
"""The longest request in bytes; we write them ourselves."""

MAX_ANSWER = 4 << 20
"""The longest answer in bytes that is read from a child."""


class BrokenProtocol(ValueError):
    """What the other side sent is not a message, or not the answer to what was asked."""


def new_id() -> str:
    """Return an id that a child cannot know before it was asked."""
    return secrets.token_hex(8)


def encode(message: Mapping[str, Any], limit: int) -> bytes:
    """Return a message with its length before it; raises BrokenProtocol beyond `limit` bytes."""
    body = json.dumps(message).encode()
    if len(body) > limit:
        raise BrokenProtocol(f"a message of {len(body)} bytes is longer than {limit}")
    return HEADER.pack(len(body)) + body


def body_length(header: bytes, limit: int) -> int:
    """Return how many bytes follow a header; raises BrokenProtocol beyond `limit`."""
    length: int = HEADER.unpack(header)[0]
    if length > limit:
        raise BrokenProtocol(f"a message of {length} bytes is announced, and {limit} is the limit")
    return length


def decode(body: bytes) -> dict[str, Any]:
    """Return a message; raises BrokenProtocol for bytes that are none."""
    try:
        message = strict_json.loads(body)
    except strict_json.BadJson as error:
        raise BrokenProtocol(f"a message is not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("id"), str):
        raise BrokenProtocol("a message has no id")
    return message


def check_id(answer: Mapping[str, Any], expected: str) -> None:
    """Raise BrokenProtocol unless this is the answer to the request of that id."""
    if answer["id"] != expected:
        raise BrokenProtocol("an answer belongs to another request")


def read(stream: BinaryIO, limit: int) -> dict[str, Any] | None:
    """Read the next message, None at the end; raises BrokenProtocol."""
    header = stream.read(HEADER.size)
    if not header:
        return None
    if len(header) < HEADER.size:
        raise BrokenProtocol("a message ends within its length")
    length = body_length(header, limit)
    body = stream.read(length)
    if len(body) < length:
        raise BrokenProtocol("a message ends before its length says")
    return decode(body)


def write(stream: BinaryIO, message: Mapping[str, Any], limit: int) -> None:
    """Write a message at once; raises BrokenProtocol when it is too long, before any of it left."""
    stream.write(encode(message, limit))
    stream.flush()
