"""Artifacts in the state file: tiny texts in the event that names them, small ones as blobs."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.artifacts import Artifact
from agentkit.errors import StoreUnavailable
from agentkit.journal.produced import Produced
from agentkit.market.seams import Transaction

INLINE_BYTES = 256 * 1024
"""Artifacts up to this size lie in the state file and are sealed with the log."""


def keep(tx: Transaction, artifacts: Sequence[Artifact]) -> tuple[Produced, ...]:
    """Write small artifacts into the state file; return how events name all of these."""
    produced = tuple(map(Produced.of, artifacts))
    for data in blobs_of(artifacts, produced):
        tx.put_blob(data)
    return produced


def blobs_of(artifacts: Sequence[Artifact], produced: Sequence[Produced]) -> tuple[bytes, ...]:
    """Return the bytes of the artifacts that are too long for an event, but small."""
    if len(produced) == 1 and produced[0].text is not None:
        return ()  # a shortcut for nearly every node
    return tuple(
        [
            artifact.read()
            for artifact, named in zip(artifacts, produced, strict=True)
            if named.text is None and named.size <= INLINE_BYTES
        ]
    )


def fetch(tx: Transaction, produced: Produced) -> Artifact:
    """Return an artifact that `keep` wrote, with its bytes; raises StoreUnavailable."""
    artifact = produced.artifact()
    if artifact.content is not None:
        return artifact
    data = tx.get_blob(produced.digest)
    if data is None:
        raise StoreUnavailable(f"artifact {produced.digest[:12]} is not in the state file")
    return artifact.located(content=data)
