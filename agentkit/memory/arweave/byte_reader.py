"""A place in bytes that came from outside."""

from __future__ import annotations

from agentkit.errors import StateCorrupt

_VARINT_BYTES = 10


class ByteReader:
    """Bytes read from front to back; reading past the end raises StateCorrupt."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if not 0 <= count <= self.left:
            raise StateCorrupt(
                f"{count} bytes are announced at byte {self._at}, {self.left} are there"
            )
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(self.left)

    def number(self, width: int) -> int:
        """Return an unsigned little-endian number of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def varint(self) -> int:
        """Return a zig-zag number of Avro (https://avro.apache.org/docs/1.11.1/specification)."""
        total = 0
        for place in range(_VARINT_BYTES):
            byte = self.take(1)[0]
            total |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return (total >> 1) ^ -(total & 1)
        raise StateCorrupt(f"a number has more than {_VARINT_BYTES} bytes")
