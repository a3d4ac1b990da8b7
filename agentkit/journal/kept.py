"""Artifacts in the state file: tiny ones in the event that names them, small ones beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agentkit.artifacts import Artifact
from agentkit.errors import StoreUnavailable
from agentkit.journal.events import Produced
from agentkit.market.seams import Transaction

INLINE_BYTES = 256 * 1024
"""Artifacts up to this size lie in the state file and are sealed beside the log."""


def keep(tx: Transaction, artifacts: Sequence[Artifact]) -> tuple[Produced, ...]:
    """Write small artifacts into the state file and return what events say of all of them."""
    produced = tuple(map(Produced.of, artifacts))
    keep_bytes(tx, artifacts, produced)
    return produced


def keep_bytes(
    tx: Transaction, artifacts: Iterable[Artifact], produced: Iterable[Produced]
) -> None:
    """Write the bytes of small artifacts that do not stand in their event."""
    for artifact, said in zip(artifacts, produced, strict=True):
        if said.text is None and said.size <= INLINE_BYTES:
            tx.keep(artifact.read())


def fetch(tx: Transaction, produced: Produced) -> Artifact:
    """Return an artifact that `keep` wrote, its bytes at hand; raises StoreUnavailable."""
    artifact = produced.artifact()
    if artifact.content is not None:
        return artifact
    data = tx.kept(produced.digest)
    if data is None:
        raise StoreUnavailable(f"artifact {produced.digest[:12]} is not in the state file")
    return artifact.located(content=data)
