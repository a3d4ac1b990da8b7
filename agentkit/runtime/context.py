"""What a run has at its disposal, wired by the agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentkit.artifacts import Artifact
from agentkit.errors import WrongInput
from agentkit.journal.blobs import INLINE_BYTES, fetch
from agentkit.journal.events import Produced
from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.market.seams import ArtifactStore, Ledger, Provider, Rail
from agentkit.money import Money
from agentkit.runtime.approve import Approval


async def nothing_first(at_most: Money) -> None:
    """Wait for nothing before a purchase."""


async def nowhere(uri: str) -> bytes:
    """Read nothing: whoever wired the run has no sources."""
    raise WrongInput(f"{uri} cannot be read here", hint="give source= a path")


@dataclass(frozen=True)
class Means:
    """Journal, providers, rails, ledger and store; `folder` is where relative sources lie.

    `read` returns what lies under the URI of a source.  `before_pay` is waited for before a
    purchase of that at most is sent; `approval` is who must agree to which nodes.
    """

    journal: Journal
    providers: Mapping[str, Provider]
    rails: Mapping[str, Rail]
    ledger: Ledger
    allowance: Allowance
    store: ArtifactStore
    folder: Path
    read: Callable[[str], Awaitable[bytes]] = nowhere
    before_pay: Callable[[Money], Awaitable[None]] = nothing_first
    approval: Approval = Approval()

    async def put(self, artifacts: tuple[Artifact, ...]) -> tuple[Artifact, ...]:
        """Store what is too large for the state file; returns the artifacts with locators."""
        return tuple([a if a.size <= INLINE_BYTES else await self.store.put(a) for a in artifacts])

    async def get_all(self, outputs: tuple[Produced, ...]) -> tuple[Artifact, ...]:
        """Return all outputs of a node, as `get` does."""
        return tuple([await self.get(produced) for produced in outputs])

    async def get(self, produced: Produced) -> Artifact:
        """Return an artifact with its bytes at hand; raises StoreUnavailable, StateCorrupt."""
        if produced.size > INLINE_BYTES:
            return await self.store.get(produced.artifact())
        if produced.text is not None:
            return produced.artifact()
        return await self.journal.commit(lambda tx: fetch(tx, produced))
