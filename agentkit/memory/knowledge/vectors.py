"""A cache of the vectors of texts that were embedded before, in files beside the journal.

There is one file for each embedding.  A row is the sha256 of a text and its unit vector in
float32.  A row that is incomplete or damaged is ignored, and its text is embedded again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agentkit.errors import ProtocolBroken

Rows = npt.NDArray[Any]
Matrix = npt.NDArray[np.float32]

MOST_AT_ONCE = 256
"""How many texts are sent in one call of an embedding."""

SPARE_ROWS = 1024
"""How many rows of forgotten texts a file may have before it is rewritten without them."""


class Vectors:
    """The cached vectors of one embedding, in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._stem = hashlib.sha256(name.encode()).hexdigest()[:32]

    async def of(
        self,
        texts: Sequence[str],
        embed: Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]],
    ) -> Matrix:
        """Return the unit vectors of texts, one row each; embed those that are not cached.

        The last text is a query: its vector is not stored.  Raises ProtocolBroken.
        """
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        text_by_digest = dict(zip(digests, texts, strict=True))
        vectors = await asyncio.to_thread(self._read)
        stored_count = len(vectors)

        missing = [digest for digest in text_by_digest if digest not in vectors]
        for start in range(0, len(missing), MOST_AT_ONCE):
            batch = missing[start : start + MOST_AT_ONCE]
            answer = await embed([text_by_digest[digest] for digest in batch])
            vectors.update(zip(batch, _unit_vectors(answer, len(batch)), strict=True))
        # Cached vectors of another length mean that the model behind the name has changed.
        if len({len(vectors[digest]) for digest in text_by_digest}) > 1:
            raise ProtocolBroken("the embedding gave vectors of several lengths")

        to_store = {digest: vectors[digest] for digest in digests[:-1]}
        if missing or stored_count > len(to_store) + SPARE_ROWS:
            await asyncio.to_thread(self._write, to_store)
        return np.stack([vectors[digest] for digest in digests])

    def _read(self) -> dict[bytes, Matrix]:
        """Return the undamaged vectors of the file, by the digest of their text."""
        for path in self._folder.glob(f"{self._stem}-*.vectors"):
            width = path.stem.rpartition("-")[2]
            if not width.isdigit() or not int(width):
                continue
            row_type = _row_type(int(width))
            data = path.read_bytes()
            complete_size = len(data) // row_type.itemsize * row_type.itemsize
            rows = np.frombuffer(data[:complete_size], row_type)
            # An interrupted write leaves zeros, a damaged file NaN: neither has length 1.
            is_unit = np.abs(_lengths(rows["vector"])[:, 0] - 1) < 1e-3
            return {row["digest"].tobytes(): row["vector"] for row in rows[is_unit]}
        return {}

    def _write(self, vectors: dict[bytes, Matrix]) -> None:
        """Replace the file by one with these vectors.

        If two processes do so at once, one of them embeds some texts again later.
        """
        if not vectors:
            return
        width = len(next(iter(vectors.values())))
        rows = np.zeros(len(vectors), _row_type(width))
        rows["digest"] = [np.frombuffer(digest, np.uint8) for digest in vectors]
        rows["vector"] = list(vectors.values())

        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / f"{self._stem}-{width}.vectors"
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(rows.tobytes())
        draft.replace(path)

        # A file of another width is from an earlier model under the same name.
        for other_path in self._folder.glob(f"{self._stem}-*.vectors"):
            if other_path != path:
                other_path.unlink(missing_ok=True)


def _row_type(width: int) -> np.dtype[Any]:
    return np.dtype([("digest", np.uint8, 32), ("vector", np.float32, width)])


def _lengths(rows: Matrix) -> Matrix:
    """Return the length of each row; callers check for infinity and NaN."""
    with np.errstate(all="ignore"):
        lengths: Matrix = np.linalg.norm(rows, axis=1, keepdims=True)
    return lengths


def _unit_vectors(vectors: Sequence[Sequence[float]], count: int) -> Matrix:
    """Return `count` vectors scaled to length one; raises ProtocolBroken if they are not that."""
    try:
        rows = np.asarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise ProtocolBroken("the embedding gave something else than vectors") from error
    if rows.ndim != 2 or len(rows) != count or not rows.shape[1]:
        raise ProtocolBroken(f"the embedding gave vectors of shape {rows.shape} for {count} texts")
    lengths = _lengths(rows)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ProtocolBroken("the embedding gave a vector that points nowhere")
    units: Matrix = rows / lengths
    return units
