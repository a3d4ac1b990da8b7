"""Artifacts in the state file: tiny ones in the event that names them, small ones beside it."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.artifacts import Artifact
from agentkit.errors import StoreUnavailable
from agentkit.journal.produced import Produced
from agentkit.market.seams import Transaction

INLINE_BYTES = 256 * 1024
"""Artifacts up to this size lie in the state file and are sealed beside the log."""


def keep(tx: Transaction, artifacts: Sequence[Artifact]) -> tuple[Produced, ...]:
    """Write small artifacts into the state file and return what events say of all of them."""
    produced = tuple(map(Produced.of, artifacts))
    for data in beside(artifacts, produced):
        tx.keep(data)
    return produced


def beside(artifacts: Sequence[Artifact], produced: Sequence[Produced]) -> tuple[bytes, ...]:
    """Return the bytes that an event does not hold and the state file has to."""
    if len(produced) == 1 and produced[0].text is not None:
        return ()  # nearly always, and for every node
    pairs = zip(artifacts, produced, strict=True)
    return tuple([a.read() for a, p in pairs if p.text is None and p.size <= INLINE_BYTES])


def fetch(tx: Transaction, produced: Produced) -> Artifact:
    """Return an artifact that `keep` wrote, its bytes at hand; raises StoreUnavailable."""
    artifact = produced.artifact()
    if artifact.content is not None:
        return artifact
    data = tx.kept(produced.digest)
    if data is None:
        raise StoreUnavailable(f"artifact {produced.digest[:12]} is not in the state file")
    return artifact.located(content=data)
