"""A small market of fakes, and what it takes to run plans on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agentkit.graph.builder import JobGraph
from agentkit.graph.frozen import FrozenGraph
from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, JobStatus, Payment
from agentkit.market.offer import Offer
from agentkit.market.plan import Plan
from agentkit.market.seams import ArtifactStore, Provider
from agentkit.market.task import Task
from agentkit.memory.artifacts.local import LocalStore
from agentkit.money import Money
from agentkit.payments.budget import Budget
from agentkit.planner.planner import make_plan
from agentkit.planner.policy import Choose
from agentkit.planner.request import Market, Wish
from agentkit.runtime import run as runs
from agentkit.runtime.approve import Approval
from agentkit.runtime.context import Resources
from agentkit.runtime.result import RunResult
from agentkit.testing.fakes import NETWORK, USDC, FakeProvider, ToyRail

WALLET = "0x00000000000000000000000000000000000000AA"


def usdc(amount: str) -> Money:
    return Money.parse(f"{amount} USDC").bind(USDC)


class GatedProvider(FakeProvider):
    """Does the first `free` tasks at once; those after them wait in their lanes for `open()`.

    So a test stops a run, or fails it, in its middle, however fast the machine is.
    """

    def __init__(self, name: str, folder: Path, *, free: int, lanes: int = 8) -> None:
        super().__init__(name, folder, lanes=lanes)
        self._free = free
        self._opened = asyncio.Event()
        self.reached = asyncio.Event()
        """Set once a task waits at the gate."""

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        if self._free:
            self._free -= 1
        else:
            self.reached.set()
            await self._opened.wait()
        return await super().submit(task, offer, attempt, payment)

    def open(self) -> None:
        """Let the waiting tasks through, and all that follow."""
        self._opened.set()


@dataclass
class Toy:
    """A market of fakes in one folder; `again` is the same one seen by a later process."""

    folder: Path
    journal: Journal
    providers: dict[str, FakeProvider]
    rail: ToyRail
    allowance: Allowance
    store: ArtifactStore | None = None

    @property
    def market(self) -> Market:
        return Market(
            NETWORK, self._providers, {"toy": self.rail}, self.allowance, WALLET, self.folder
        )

    @property
    def _providers(self) -> Mapping[str, Provider]:
        return dict(self.providers)

    @property
    def means(self) -> Resources:
        return Resources(
            self.journal,
            self._providers,
            {"toy": self.rail},
            Budget(self.allowance),
            self.allowance,
            self.store or LocalStore(self.folder / "artifacts"),
            self.folder,
        )

    def asking(self, approval: Approval) -> Resources:
        """Return the means of a run that asks somebody."""
        return replace(self.means, approval=approval)

    @property
    def executions(self) -> list[str]:
        return [attempt for p in self.providers.values() for attempt in p.executions]

    async def plan(
        self,
        graph: JobGraph | FrozenGraph,
        budget: str = "1",
        policy: Choose | None = None,
        deadline: float | None = None,
        reputations: Mapping[str, float] | None = None,
    ) -> Plan:
        frozen = graph.freeze() if isinstance(graph, JobGraph) else graph
        market = replace(self.market, reputations=reputations or {})
        wish = Wish(budget=usdc(budget), policy=policy, deadline=deadline)
        return await make_plan(frozen, market, wish)

    async def run(self, graph: JobGraph, budget: str = "1") -> RunResult:
        run = await runs.start(self.means, await self.plan(graph, budget))
        return await run.result()


@asynccontextmanager
async def toy(
    folder: Path,
    *,
    allowance: Allowance | None = None,
    rail: ToyRail | None = None,
    **providers: FakeProvider,
) -> AsyncIterator[Toy]:
    """Open the toy market of a folder; without providers it has `one` and the dearer `two`."""
    journal = await Journal.open(folder / "home", WALLET)
    if not providers:
        providers = {
            "one": FakeProvider("one", folder / "one"),
            "two": FakeProvider("two", folder / "two", factor=2),
        }
    try:
        yield Toy(folder, journal, providers, rail or ToyRail(), allowance or Allowance())
    finally:
        await journal.close()
