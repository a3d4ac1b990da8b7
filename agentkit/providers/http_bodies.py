"""Undoing the compression of HTTP bodies, within a bound."""

from __future__ import annotations

import zlib

ACCEPTED = "gzip, deflate"
"""The content codings that are asked for and can be undone."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


class BodyTooLarge(ValueError):
    """A body unpacks to more than its bound."""


def unpacked(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Return a body without its content coding; `coding` is the header Content-Encoding.

    By RFC 9110, 8.4.1, `deflate` has the frame of zlib; some servers send it raw, which is taken
    too.  Raises BodyTooLarge above `max_bytes`, and ValueError, in words, for another coding and
    for a body that is not in its coding.
    """
    for name in reversed([part.strip().lower() for part in coding.split(",")]):
        match name:
            case "" | "identity":
                continue
            case "gzip" | "x-gzip":
                body = _inflated(body, _GZIP, max_bytes)
            case "deflate":
                body = _inflated(body, _ZLIB if _has_zlib_header(body) else _RAW, max_bytes)
            case _:
                raise ValueError(f"it is packed as {name[:20]!r}, which was not asked for")
    return body


def _has_zlib_header(body: bytes) -> bool:
    """Return whether a body begins as RFC 1950 says: method 8, and a checksum over two bytes."""
    return len(body) > 1 and body[0] & 0x0F == 8 and (body[0] * 256 + body[1]) % 31 == 0


def _inflated(body: bytes, window: int, max_bytes: int) -> bytes:
    """Return the content of one deflate stream; raises ValueError for half of one as well."""
    unpacking = zlib.decompressobj(window)
    try:
        content = unpacking.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise ValueError("it is not packed as it says") from error
    if len(content) > max_bytes:
        raise BodyTooLarge("the answer is too large")
    if not unpacking.eof:
        raise ValueError("what it packed has no end")
    return content
