"""Vectors of texts that were embedded before: a cache beside the journal, never a second truth.

One file for each embedding: rows of a text's sha256 and its unit vector in float32.  A row that
was cut off or does not fit is as if it were not there.
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
"""Texts in one call of an embedding."""

SPARE_ROWS = 1024
"""Rows of texts that are not known any more, before the file is written anew without them."""


class Vectors:
    """The vectors of one embedding, kept in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._stem = hashlib.sha256(name.encode()).hexdigest()[:32]

    async def of(
        self,
        texts: Sequence[str],
        embed: Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]],
    ) -> Matrix:
        """Return unit vectors of texts, one row each; the last is not kept (it is a query)."""
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        known = await asyncio.to_thread(self._read)
        stored = len(known)
        by_digest = dict(zip(digests, texts, strict=True))
        missing = [digest for digest in by_digest if digest not in known]
        for start in range(0, len(missing), MOST_AT_ONCE):
            part = missing[start : start + MOST_AT_ONCE]
            vectors = _units(await embed([by_digest[d] for d in part]), len(part))
            known.update(zip(part, vectors, strict=True))
        if len({len(known[digest]) for digest in by_digest}) > 1:
            raise ProtocolBroken("the embedding gave vectors of several lengths")
        kept = {digest: known[digest] for digest in digests[:-1]}
        if missing or stored > len(kept) + SPARE_ROWS:
            await asyncio.to_thread(self._write, kept)
        return np.stack([known[digest] for digest in digests])

    def _read(self) -> dict[bytes, Matrix]:
        """Return the vectors that are whole, by the digest of their text."""
        for path in self._folder.glob(f"{self._stem}-*.vectors"):
            width = path.stem.rpartition("-")[2]
            if not width.isdigit() or not int(width):
                continue
            kind = _row(int(width))
            data = path.read_bytes()
            rows = np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)
            lengths = _lengths(rows["vector"])[:, 0]
            whole = np.abs(lengths - 1) < 1e-3  # zeros of a torn write, NaN of a damaged one
            return {row["digest"].tobytes(): row["vector"] for row in rows[whole]}
        return {}

    def _write(self, kept: dict[bytes, Matrix]) -> None:
        """Write the file anew; another process that does the same costs a repeated embedding."""
        if not kept:
            return
        width = len(next(iter(kept.values())))
        rows = np.zeros(len(kept), _row(width))
        rows["digest"] = [np.frombuffer(digest, np.uint8) for digest in kept]
        rows["vector"] = list(kept.values())
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / f"{self._stem}-{width}.vectors"
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(rows.tobytes())
        fresh.replace(path)
        for other in self._folder.glob(f"{self._stem}-*.vectors"):
            if other != path:
                other.unlink(missing_ok=True)


def _row(width: int) -> np.dtype[Any]:
    return np.dtype([("digest", np.uint8, 32), ("vector", np.float32, width)])


def _lengths(rows: Matrix) -> Matrix:
    with np.errstate(all="ignore"):  # what is no length is found by whoever asks
        lengths: Matrix = np.linalg.norm(rows, axis=1, keepdims=True)
    return lengths


def _units(vectors: Sequence[Sequence[float]], count: int) -> Matrix:
    """Return vectors as rows of length one; raises ProtocolBroken for what are none."""
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
