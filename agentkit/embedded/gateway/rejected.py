"""What the gateway refuses."""

from __future__ import annotations


class Rejected(Exception):
    """A post that the gateway does not take; `status` is the HTTP status a real one answers."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status
