"""What JSON-RPC 2.0 answers when it cannot do what was asked."""

from __future__ import annotations

from typing import Any

MALFORMED = -32700
INVALID_REQUEST = -32600
UNKNOWN_METHOD = -32601
INVALID_PARAMS = -32602
INTERNAL = -32603
REFUSED = -32000
UNAUTHORIZED = -32001
REVERTED = 3
LIMITED = -32005  # EIP-1474: a request is larger than a node answers


class Fault(Exception):
    """An error with one of the codes above."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def encode(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        return error if self.data is None else error | {"data": self.data}
