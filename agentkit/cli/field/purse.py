"""The wallet as the canaries use it: each purchase is a run of one node, within one budget."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agentkit.cli.field.canary import CannotTry
from agentkit.cli.field.stall import MODEL
from agentkit.errors import NoOffer, OverBudget
from agentkit.graph.builder import JobGraph
from agentkit.market.offer import Offer
from agentkit.market.plan import Plan
from agentkit.market.seams import Provider
from agentkit.money import Money
from agentkit.payments.rail_choice import History, RailPlanner
from agentkit.planner.planner import make_plan
from agentkit.planner.policy import Policy
from agentkit.planner.request import Wish
from agentkit.runtime import run as runs
from agentkit.runtime.context import Resources
from agentkit.runtime.result import RunResult
from agentkit.wiring import Parts


@dataclass(eq=False)
class Purse:
    """A wallet with what is `left` of the budget for all canaries.

    `runs` are the purchases so far, `paid` what they cost in base units.
    """

    parts: Parts
    left: Money
    paid: int = 0
    runs: list[str] = field(default_factory=list)

    def resources(self, provider: Provider) -> Resources:
        """Return what a run is given that may buy from one provider besides the usual ones."""
        known = {**self.parts.resources.providers, provider.name: provider}
        return replace(self.parts.resources, providers=known)

    async def buy(self, provider: Provider, at_most: int) -> RunResult:
        """Buy one chat of a provider, for `at_most` base units; raises CannotTry, RunPaused."""
        plan = await self.plan(provider, at_most)
        return await self._run(self.resources(provider), plan)

    async def plan(self, provider: Provider, at_most: int) -> Plan:
        """Return the plan of one chat of a provider; raises CannotTry over the budget."""
        market = replace(self.parts.market, providers={provider.name: provider})
        wish = Wish(budget=self.set_aside(at_most))
        return await make_plan(question("field").freeze(), market, wish)

    async def buy_from_escrow(self, at_most: int) -> RunResult:
        """Buy one chat that is paid out of escrow, of whom the settings name; raises CannotTry."""
        currency = self.parts.network.currency
        planner = RailPlanner(
            rails=("escrow",),
            escrow_from=currency.zero(),
            escrow_after=0.0,
            arbiter_above=Money(at_most, currency),
        )
        history = await self.parts.journal.commit(History.of)
        market = replace(self.parts.market, pay=planner.choosing(history))
        policy = Policy("out of escrow", _out_of_escrow)
        wish = Wish(budget=self.set_aside(at_most), policy=policy)
        try:
            plan = await make_plan(question("field-escrow").freeze(), market, wish)
        except NoOffer as error:
            raise CannotTry(f"no provider in the settings sells {MODEL} out of escrow") from error
        return await self._run(self.parts.resources, plan)

    async def resume(self, run: str, provider: Provider) -> RunResult:
        """Go on with a run that another process left, and return its result."""
        result = await (await runs.resume(self.resources(provider), run)).result()
        self._count(result)
        return result

    def set_aside(self, at_most: int) -> Money:
        """Take the most that a purchase may cost off the budget, for good, and return it.

        What comes back later is not added again: so all that ever leaves the wallet together stays
        within the budget.  Raises CannotTry when too little is left.
        """
        wanted = Money(at_most, self.left.asset)
        if wanted > self.left:
            raise CannotTry(f"it may cost {wanted}, and {self.left} is left of the budget")
        self.left -= wanted
        return wanted

    # -- inside ----------------------------------------------------------------------------------

    async def _run(self, resources: Resources, plan: Plan) -> RunResult:
        try:
            run = await runs.start(resources, plan)
        except OverBudget as error:
            raise CannotTry(str(error)) from error
        result = await run.result()
        self._count(result)
        return result

    def _count(self, result: RunResult) -> None:
        """Remember a run, and what it cost."""
        self.runs.append(result.run_id)
        self.paid += result.paid.units


def question(name: str) -> JobGraph:
    """Return the graph that every canary buys: one short chat."""
    graph = JobGraph(name)
    graph.infer("say", model=MODEL, prompt="Say yes.", max_tokens=4)
    return graph


def _out_of_escrow(offers: list[Offer]) -> list[Offer]:
    return [offer for offer in offers if offer.rail == "escrow"]
