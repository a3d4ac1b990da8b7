"""What a run has at its disposal, wired by the agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentkit.artifacts import Artifact
from agentkit.errors import StoreUnavailable
from agentkit.journal.events import Produced
from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.market.seams import ArtifactStore, Ledger, Provider, Rail, Transaction
from agentkit.money import Money

INLINE_BYTES = 256 * 1024
"""Artifacts up to this size lie in the state file and are sealed beside the log."""


async def nothing_first(at_most: Money) -> None:
    """Wait for nothing before a purchase."""


@dataclass(frozen=True)
class Means:
    """Journal, providers, rails, ledger and store; `folder` is where relative sources lie.

    `before_pay` is waited for before a purchase of that at most is sent.
    """

    journal: Journal
    providers: Mapping[str, Provider]
    rails: Mapping[str, Rail]
    ledger: Ledger
    allowance: Allowance
    store: ArtifactStore
    folder: Path
    before_pay: Callable[[Money], Awaitable[None]] = nothing_first

    async def put(self, artifacts: tuple[Artifact, ...]) -> tuple[Artifact, ...]:
        """Store what is too large for the state file; returns the artifacts with locators."""
        if all(artifact.size <= INLINE_BYTES for artifact in artifacts):
            return artifacts
        return tuple([a if a.size <= INLINE_BYTES else await self.store.put(a) for a in artifacts])

    async def get(self, produced: Produced) -> Artifact:
        """Return an artifact with its bytes at hand; raises StoreUnavailable, StateCorrupt."""
        artifact = produced.artifact()
        if artifact.size > INLINE_BYTES:
            return await self.store.get(artifact)
        data = await self.journal.commit(lambda tx: tx.kept(artifact.digest))
        if data is None:
            raise StoreUnavailable(f"artifact {artifact.digest[:12]} is not in the state file")
        return artifact.located(content=data)


def keep(tx: Transaction, artifacts: tuple[Artifact, ...]) -> tuple[Produced, ...]:
    """Write small artifacts into the state file and return what events say of all of them."""
    for artifact in artifacts:
        if artifact.size <= INLINE_BYTES:
            tx.keep(artifact.content if isinstance(artifact.content, bytes) else artifact.read())
    return tuple(Produced.of(artifact) for artifact in artifacts)
