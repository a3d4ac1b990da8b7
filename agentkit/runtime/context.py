"""What a run works with, as one argument."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentkit.artifacts import Artifact
from agentkit.errors import WrongInput
from agentkit.journal.blobs import INLINE_BYTES, fetch
from agentkit.journal.journal import Journal
from agentkit.journal.produced import Produced
from agentkit.journal.run_state import RunState
from agentkit.market.allowance import Allowance
from agentkit.market.carrying import provider_of
from agentkit.market.seams import ArtifactStore, Ledger, Provider, Rail
from agentkit.money import Money
from agentkit.runtime.approve import Approval
from agentkit.runtime.deadline import Deadline
from agentkit.runtime.run_log import RunLog
from agentkit.runtime.stop import StopSignal


async def _nothing_first(at_most: Money) -> None:
    """Wait for nothing before a purchase."""


async def _no_sources(uri: str) -> bytes:
    """Refuse to read a source: whoever wired the run has none."""
    raise WrongInput(f"{uri} cannot be read here", hint="give source= a path")


@dataclass(frozen=True)
class Resources:
    """What all runs of one wallet share; the agent makes it once.

    Relative sources lie in `folder`, and `read` returns what lies under the URI of a source.
    `before_pay` is awaited with an attempt's at most before the attempt is sent.  `approval` says
    who must agree to which nodes.
    """

    journal: Journal
    providers: Mapping[str, Provider]
    rails: Mapping[str, Rail]
    ledger: Ledger
    allowance: Allowance
    store: ArtifactStore
    folder: Path
    read: Callable[[str], Awaitable[bytes]] = _no_sources
    before_pay: Callable[[Money], Awaitable[None]] = _nothing_first
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


@dataclass(frozen=True)
class RunContext:
    """What everything that works on one run is given.

    `rebuy`: the user asked to buy again what nobody can say was bought.
    """

    resources: Resources
    log: RunLog
    stop: StopSignal
    deadline: Deadline
    rebuy: bool = False

    @classmethod
    def of(cls, resources: Resources, log: RunLog, *, rebuy: bool = False) -> RunContext:
        """Return the context of a run whose log holds at least its start."""
        return cls(
            resources,
            log,
            stop=StopSignal(log.run),
            deadline=Deadline(log.state.planned),
            rebuy=rebuy,
        )

    @property
    def run(self) -> str:
        """The id of the run."""
        return self.log.run

    @property
    def state(self) -> RunState:
        """What the run has done so far; only its log changes it."""
        return self.log.state

    @property
    def ledger(self) -> Ledger:
        """The books of the budget."""
        return self.resources.ledger

    def rail(self, name: str) -> Rail:
        """Return a rail by name; a plan that names an unknown one was refused when it started."""
        return self.resources.rails[name]

    def provider(self, name: str) -> Provider:
        """Return a provider by name; raises Unavailable when it is no longer configured."""
        return provider_of(self.resources.providers, name)
