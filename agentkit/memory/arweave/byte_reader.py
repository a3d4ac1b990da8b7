"""Bounds-checked reader for untrusted bytes."""

from __future__ import annotations

from agentkit.errors import StateCorrupt

_VARINT_BYTES = 10


class ByteReader:
    """Reads bytes from front to back; reading past the end raises StateCorrupt."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if not 0 <= count <= self.remaining:
            raise StateCorrupt(
                f"{count} bytes are announced at byte {self._at}, {self.remaining} are there"
            )
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        """Return all bytes that were not read yet."""
        return self.take(self.remaining)

    def number(self, width: int) -> int:
        """Read an unsigned little-endian number of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def varint(self) -> int:
        """Read a number in Avro's variable-length zig-zag coding.

        Each byte has 7 bits of the number, the lowest first; its top bit says that more follow.
        Zig-zag maps 0, -1, 1, -2 to 0, 1, 2, 3 (https://avro.apache.org/docs/1.11.1/specification).
        """
        encoded = 0
        for position in range(_VARINT_BYTES):
            byte = self.take(1)[0]
            encoded |= (byte & 0x7F) << (7 * position)
            if byte < 0x80:
                return (encoded >> 1) ^ -(encoded & 1)
        raise StateCorrupt(f"a number has more than {_VARINT_BYTES} bytes")
