"""The chunks of layer-1 data that have arrived."""

from __future__ import annotations

import sqlite3

from agentkit.embedded.gateway.files import ContentFiles


class Chunks:
    """Chunks by data root and place; equal chunks share a file and keep their places."""

    def __init__(self, database: sqlite3.Connection, files: ContentFiles) -> None:
        self._database, self._files = database, files

    def add(self, root: str, size: int, start: int, data: bytes) -> bool:
        """Store a chunk that was proven to start at `start`, and say whether it is new."""
        digest = self._files.put(data)
        written = self._database.execute(
            "insert or ignore into chunk values (?, ?, ?, ?, ?)",
            (root, size, start, start + len(data), digest),
        )
        return written.rowcount == 1

    def forget(self, root: str, size: int) -> None:
        """Lose the chunks of some data."""
        self._database.execute("delete from chunk where root = ? and size = ?", (root, size))

    def joined(self, root: str, size: int) -> bytes | None:
        """Return the data, None as long as a chunk is missing."""
        place, parts = 0, []
        for start, stop, digest in self._database.execute(
            "select start, stop, digest from chunk where root = ? and size = ? order by start",
            (root, size),
        ):
            if start != place:
                return None
            parts.append(digest)
            place = stop
        return b"".join(map(self._files.get, parts)) if place == size else None
