"""The local artifact store: files named by their sha256, never half written."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agentkit.artifacts import Artifact
from agentkit.errors import StateCorrupt, StoreUnavailable

_DIGEST = re.compile(r"[0-9a-f]{64}")


class LocalStore:
    """A folder of artifacts; see `market.seams.ArtifactStore`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def scheme(self) -> str:
        return "file"

    async def put(self, artifact: Artifact) -> Artifact:
        """Store an artifact, unless its file is there already."""
        path = await asyncio.to_thread(self._write, artifact)
        return artifact.located(f"file:{artifact.digest}", content=path)

    async def get(self, artifact: Artifact) -> Artifact:
        """Return an artifact with its file; raises StoreUnavailable, StateCorrupt."""
        path = self._path(artifact.digest)
        await asyncio.to_thread(_check_file, path, artifact.digest)
        return replace(artifact, content=path)

    async def mend(self, artifact: Artifact) -> Artifact:
        """Store an artifact anew, in place of a damaged file."""
        path = self._path(artifact.digest)
        await asyncio.to_thread(path.unlink, missing_ok=True)
        return await self.put(artifact)

    def _path(self, digest: str) -> Path:
        """Return the path of an artifact's file; raises StoreUnavailable for a bad digest."""
        # A digest may come from a provider or a gateway: "../x" must not become a path.
        if not _DIGEST.fullmatch(digest):
            raise StoreUnavailable(f"{digest[:64]!r} is not the sha256 of an artifact")
        return self._folder / digest[:2] / digest

    def _write(self, artifact: Artifact) -> Path:
        """Write an artifact's file if it is not there, and return its path."""
        path = self._path(artifact.digest)
        if path.exists():
            return path

        # Written under another name and renamed: after a crash the file is complete or absent.
        draft = path.with_name(f"draft-{secrets.token_hex(6)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(artifact.read())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise StoreUnavailable(
                f"the artifact folder {self._folder} cannot be written: {error.strerror}",
                hint="free some space, or set AGENTKIT_HOME to another disk",
            ) from error
        return path


def _check_file(path: Path, digest: str) -> None:
    """Check that a file has the sha256 `digest`; raises StoreUnavailable, StateCorrupt."""
    try:
        with path.open("rb") as file:
            actual_digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreUnavailable(f"artifact {digest[:12]} is not on this machine") from error
    if actual_digest != digest:
        raise StateCorrupt(f"the file of artifact {digest[:12]} does not hash to its own name")
