"""Content on disk, each under its sha256."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from agentkit.errors import StateCorrupt

_DRAFT = ".draft"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ContentFiles:
    """A folder of immutable files; what `put` returned a digest for survives a power cut."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        for draft in folder.glob(f"*{_DRAFT}"):
            draft.unlink()

    def put(self, data: bytes) -> str:
        """Store bytes and return their digest."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._folder / digest
        if path.exists():
            return digest
        draft = path.with_suffix(_DRAFT)
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        self._sync()
        return digest

    def get(self, digest: str) -> bytes:
        """Return stored bytes; raises StateCorrupt when they are gone or changed."""
        if not _DIGEST.fullmatch(digest):
            raise StateCorrupt(f"{digest[:64]!r} is not the sha256 of any content")
        try:
            data = (self._folder / digest).read_bytes()
        except FileNotFoundError as error:
            raise StateCorrupt(f"the content {digest[:12]} is gone") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise StateCorrupt(f"the content {digest[:12]} was changed on disk")
        return data

    def _sync(self) -> None:
        """Make the new name durable: a rename is only as safe as its folder."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
