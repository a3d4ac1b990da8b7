"""Public entry point: plans graphs, runs plans, and looks after one wallet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from agentkit.config import Settings
from agentkit.errors import (
    AgentKitError,
    ConfigError,
    InsufficientFunds,
    RunNotFound,
    RunPaused,
    WrongInput,
)
from agentkit.fetching import Fetched, RequestFields, free_answer, graph_of
from agentkit.graph.builder import JobGraph
from agentkit.graph.frozen import FrozenGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.left_runs import outcome_of, same_graph, tell_end
from agentkit.market.allowance import Allowance
from agentkit.market.chain import Network
from agentkit.market.plan import Plan
from agentkit.money import Money
from agentkit.payments.budget import used_so_far
from agentkit.payments.channels.recovery import ChannelRecovery, Recovered
from agentkit.payments.closing import close_all
from agentkit.payments.rail_choice import History
from agentkit.planner.estimate import Measured, measured_in
from agentkit.planner.planner import check_fresh, make_plan
from agentkit.planner.policy import Choose
from agentkit.planner.remaining import rest_of
from agentkit.planner.request import Market, Wish, check_wish
from agentkit.runtime import run as runs
from agentkit.runtime.approve import Approval
from agentkit.runtime.context import Resources
from agentkit.runtime.history import read as read_run
from agentkit.runtime.result import RunResult
from agentkit.runtime.run import Run
from agentkit.runtime.stop import pause_of
from agentkit.schedule import Schedule, Tick, folder_of_agent, name_of
from agentkit.user_values import check_keywords
from agentkit.wallet_view import WalletView, check_id
from agentkit.wiring import fetch_models, open_parts

log = logging.getLogger("agentkit")

Graph = JobGraph | FrozenGraph

CANCEL_SECONDS = 5.0
"""How long a process that works on a run is waited for, once it was asked to cancel it."""

CANCEL_LOOK = 0.1
"""Seconds between looks whether it has."""


class Agent(WalletView):
    """An agent over one wallet: plans graphs, runs plans, pays, remembers.

        async with Agent.from_config() as agent:
            result = await agent.run(graph, budget="0.05 USDC")

    With no network configured it uses the embedded one, with test money only.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._stack = AsyncExitStack()
        self._running: set[Run] = set()
        self._chores: set[asyncio.Task[None]] = set()

    @classmethod
    def from_config(
        cls,
        config: str | Path | None = None,
        *,
        allowance: Allowance | None = None,
        **settings: Any,
    ) -> Self:
        """Return an agent that opens with `async with`; arguments win over files and environment.

        Raises ConfigError.
        """
        agent = cls(Settings.read(None if config is None else Path(config), **settings))
        if allowance is not None:
            agent.settings = agent.settings.model_copy(update={"allowance": allowance})
        return agent

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        try:
            self._opened = await open_parts(self.settings, self._stack)
        except BaseException:
            await self._stack.aclose()
            raise
        folder_of_agent.set(self._schedules)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        folder_of_agent.set(None)
        await self.stop()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self._stack.aclose()

    # -- plan and run ----------------------------------------------------------------------------

    async def plan(
        self,
        graph: Graph,
        *,
        budget: str | Money | None = None,
        deadline: timedelta | None = None,
        policy: Choose | None = None,
        objective: str | float = "cost",
        risk: float = 0.5,
        effort: Literal["normal", "high"] = "normal",
        run: str | None = None,
        balance: bool = True,
    ) -> Plan:
        """Return where every node would run and what it would cost; spends nothing.

        `objective` is "cost", "time", or a weight from the first (0) to the second (1).  `risk` is
        the share of cases in which nodes take no longer than planned.  `effort="high"` looks for
        a better plan for up to a minute.  `run` plans what is left of a run, for `resume`, under
        its own budget unless another is given.  `balance=False` leaves the wallet's balance out
        and does without the chain.  Raises GraphError, PlanError, BadAmount, RunNotFound.
        """
        check_wish(deadline, policy, objective, risk, effort)
        frozen = _frozen(graph)
        if self.network.test:
            await fetch_models(frozen)
        rest = rest_of(await self.status(run)) if run else None
        frozen.check_findable(rest.done if rest else ())
        of_run = rest.plan.budget if rest else None
        wish = Wish(
            budget=of_run if budget is None else Money.parse(budget),
            deadline=deadline.total_seconds() if deadline is not None else None,
            policy=policy,
            objective=objective,
            risk=risk,
            effort=effort,
        )
        held = await self._currency_balance() if balance else None
        uploads = [fee for fee in [await self.memory.fee()] if fee]
        market = await self._market_now(frozen, run or "")
        return await make_plan(frozen, market, wish, balance=held, uploads=uploads, rest=rest)

    async def _market_now(self, graph: FrozenGraph, run: str) -> Market:
        """Return the market with what this wallet knows by now: reputations, limits used, sizes.

        What `run` itself has spent and holds does not count against the limits of its own rest.
        """
        zero = self.network.currency.zero()
        reputations, history, used = await self._journal.commit(
            lambda tx: (tx.every(r.Reputation), History.of(tx), used_so_far(tx, zero, run))
        )
        return replace(
            self._parts.market,
            reputations={row.provider: row.share for row in reputations},
            pay=self._parts.rail_planner.choosing(history),
            measured=await self._measured(graph),
            used=used,
        )

    async def _measured(self, graph: FrozenGraph) -> Mapping[str, Measured]:
        """Return what the last finished run of a graph of this name used."""
        for row in await self.runs():
            if row.graph == graph.name and row.state == "done":
                state = await read_run(self._journal, row.run)
                return measured_in(row.run, state.planned.graph, state.receipts)
        return {}

    async def start(
        self, plan: Plan, *, approve: Approval | None = None, trust_code: Collection[str] = ()
    ) -> Run:
        """Reserve a plan's worst case and begin to run it; raises PlanError, InsufficientFunds.

        `approve` says who is asked before dear or marked nodes, instead of the settings.  Where
        the graph was read from a file, code that it names is loaded only if `trust_code` holds
        the sha256 of the file it stands in; else UntrustedCode is raised.
        """
        check_fresh(plan, self._parts.market)
        if plan.balance is not None:
            await self._check_funds(plan)
        run = await runs.start(self._asking(approve), plan, trust_code=trust_code)
        return self._keep(run)

    async def run(
        self,
        what: Graph | Plan,
        *,
        approve: Approval | None = None,
        trust_code: Collection[str] = (),
        **wish: Any,
    ) -> RunResult:
        """Plan a graph, or take a plan, run it and return the result.

        Takes what `plan` and `start` take.  Raises PlanError (nothing spent), UntrustedCode,
        RunPaused, RunFailed.
        """
        check_keywords("run", wish, self.run, self.plan)
        if not isinstance(what, Plan):
            what = await self.plan(what, **{"balance": False, **wish})
        elif wish:
            raise ConfigError(
                f"a plan was made with its own limits, and {next(iter(wish))}= cannot change them",
                hint="plan the graph again: ak.plan(graph, budget=...), and run that plan",
            )
        run = await self.start(what, approve=approve, trust_code=trust_code)
        return await run.result()

    async def fetch(
        self,
        url: str,
        *,
        budget: str | Money,
        approve: Approval | None = None,
        **request: Unpack[RequestFields],
    ) -> Fetched:
        """Return what an address answers; where it asks for a payment by x402, up to `budget`.

        Takes `method`, `body` (JSON, or text) and `headers`.  A paid request is a run: under the
        same allowance, journal, receipts and approval, and `resume` goes on with it.  Raises what
        `run` raises, and ProviderError for an address that cannot be reached.
        """
        graph = graph_of(url, request)
        answer = await free_answer(self.network, graph)
        if answer is not None:
            return answer
        return Fetched.of(await self.run(graph, budget=budget, approve=approve))

    async def resume(
        self,
        run_id: str,
        *,
        graph: Graph | None = None,
        plan: Plan | None = None,
        budget: str | Money | None = None,
        approved: Sequence[str] = (),
        approve: Approval | None = None,
        rebuy: bool = False,
        trust_code: Collection[str] = (),
    ) -> Run:
        """Go on with a run; see `runtime.run.resume`.  Raises PlanExpired for an old plan, too."""
        check_id(run_id)
        frozen = _frozen(graph) if graph is not None else None
        if plan is not None:
            check_fresh(plan, self._parts.market)
        run = await runs.resume(
            self._asking(approve),
            run_id,
            plan=plan,
            graph=frozen,
            budget=None if budget is None else Money.parse(budget).bind(self.network.currency),
            approved=approved,
            rebuy=rebuy,
            trust_code=trust_code,
        )
        return self._keep(run)

    @overload
    async def resume_all(
        self, graphs: Iterable[Graph] = (), *, paused: bool = False, wait: Literal[False] = False
    ) -> dict[str, Run | AgentKitError]: ...

    @overload
    async def resume_all(
        self, graphs: Iterable[Graph] = (), *, paused: bool = False, wait: Literal[True]
    ) -> dict[str, RunResult | AgentKitError]: ...

    async def resume_all(
        self, graphs: Iterable[Graph] = (), *, paused: bool = False, wait: bool = False
    ) -> Mapping[str, Run | RunResult | AgentKitError]:
        """Go on with the runs that a process which ended left behind, beside new work, and say so.

        These are the runs that were under way and that no process works on; `paused` adds those
        that were paused, but for runs that wait for something to be mended.  `graphs` supplies
        functions that only this program has.  Returns a handle on each run, or with `wait`, once
        all have ended, how each came out.  A run that cannot go on (its functions are not here)
        stays as it is, and its error is returned; the others go on.
        """
        resumed: dict[str, Run | AgentKitError] = {}
        supplied = [_frozen(graph) for graph in graphs]
        for row in await self._journal.commit(lambda tx: tx.every(r.Run)):
            if row.state == "running" or (paused and row.state == "paused"):
                if self.is_left(row.run):
                    resumed[row.run] = await self._take_up(row, supplied)
            elif row.state == "paused":
                log.warning("run %s (%s) stays paused: %s", row.run, row.graph, row.why)
        self._do_beside(self._close_idle())
        if not wait:
            return resumed
        return {name: await outcome_of(run) for name, run in resumed.items()}

    async def _take_up(self, row: r.Run, supplied: Sequence[FrozenGraph]) -> Run | AgentKitError:
        """Go on with a run that was left, and say so; returns why not where that cannot be."""
        try:
            state = await read_run(self._journal, row.run)
            if state.mend:
                raise pause_of(state)
            graph = same_graph(state.planned.graph, supplied)
            run = await self.resume(row.run, graph=graph)
        except AgentKitError as error:
            log.warning("run %s (%s) cannot go on: %s; %s", row.run, row.graph, error, error.hint)
            return error
        log.warning("run %s (%s) was left %s: going on with it", row.run, row.graph, row.state)
        run.on_end(tell_end)
        return run

    def _do_beside(self, chore: Coroutine[Any, Any, None]) -> None:
        """Have something done while the agent is open; closing it ends what is not done yet."""
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _close_idle(self) -> None:
        """Close channels that nothing was paid on for long; one that cannot be stays open."""
        idle = timedelta(days=self.settings.payments.close_idle)
        try:
            for label, outcome in (await self.close_channels(idle)).items():
                log.warning("idle channel %s: %s", label, outcome)
        except AgentKitError as error:
            log.warning("idle channels stay open: %s", error)

    async def cancel(self, run_id: str, *, patience: float = CANCEL_SECONDS) -> bool:
        """End a run for good, whichever process has it, and return whether it has ended.

        Another process that works on it is asked, and waited for up to `patience` seconds; False
        is that it has not ended by then, and will.  Raises RunNotFound.
        """
        check_id(run_id)
        if not await self._is_open(run_id):
            return True
        await self._journal.commit(lambda tx: tx.append(e.WALLET, e.CancelAsked(run=run_id)))
        until = self.loop.time() + patience
        while await self._is_open(run_id):
            try:
                run = await self.resume(run_id)
            except RunPaused:  # its own process sees the request
                if self.loop.time() >= until:
                    return False
                await asyncio.sleep(CANCEL_LOOK)
            else:
                await run.cancel()
                return True
        return True

    async def _is_open(self, run_id: str) -> bool:
        """Whether a run is not at its end; raises RunNotFound."""
        known = await self._journal.commit(lambda tx: tx.get(r.Run, run_id))
        if known is None:
            raise RunNotFound(f"there is no run {run_id!r}")
        return known.state in ("running", "paused")

    def every(self, period: timedelta, name: str = "") -> AsyncIterator[Tick]:
        """Yield a tick every period, as `ak.every` does, and know those missed across restarts.

        The last tick of each `name` is kept in a file in the wallet's folder.  Raises ConfigError.
        """
        return Schedule(self._schedules, name or name_of(period)).every(period)

    @property
    def busy(self) -> bool:
        """Whether a run of this process is under way."""
        return bool(self._running)

    async def stop(self) -> None:
        """Pause every run of this process; see `Run.stop`."""
        for run in list(self._running):
            await run.stop()

    async def close_channels(self, idle: timedelta | None = None) -> dict[str, str]:
        """Close channels and take money out of escrow; returns what came of each, by label.

        Through their providers; where one does not answer, what the contract lets the payer do
        alone.  `idle` closes only what was not used for that long.  Raises SettlementFailed when a
        run still has attempts open on one of them.
        """
        resources = self._parts.resources
        seconds = idle.total_seconds() if idle else 0.0
        return await close_all(resources.rails, resources.providers, seconds)

    async def recover_channels(self, since: int = 0) -> Recovered:
        """Find channels that this wallet filled and its books do not know, after a loss of all.

        Searches the chain from block `since` on, by the wallet's address alone; `close_channels`
        then takes back what is left.  Raises StoreUnavailable.
        """
        parts = self._parts
        recovery = ChannelRecovery(parts.journal, parts.chain, parts.network, self.address)
        return await recovery.search(since)

    @property
    def _schedules(self) -> Path:
        return self.home / "schedules"

    def _asking(self, approve: Approval | None) -> Resources:
        """Return the resources of a run that asks whom `approve` names, instead of the settings."""
        if approve is None:
            return self._parts.resources
        if not isinstance(approve, Approval):
            raise ConfigError(
                f"approve={approve!r} does not say who is asked",
                hint="pass approve=ak.approve.console() or ak.approve.callback(function)",
            )
        above = approve.above and approve.above.bind(self.network.currency)
        return replace(self._parts.resources, approval=replace(approve, above=above))

    # -- inside ----------------------------------------------------------------------------------

    def _keep(self, run: Run) -> Run:
        self._running.add(run)
        run.on_end(self._ended)
        return run

    def _ended(self, run: Run) -> None:
        self._running.discard(run)
        self.memory.wake()

    async def _check_funds(self, plan: Plan) -> None:
        """Refuse a plan that the wallet and what it has placed could not pay at worst.

        What it has on one network pays for nothing on another.
        """
        placed, _ = await self._placed()
        for network in (self.network, *self.network.beside):
            needed = _needed_on(network, plan, self.network)
            if not needed:
                continue
            is_home = network is self.network
            held = plan.balance if is_home else await self._currency_balance(network)
            on_it = (a.units for a in placed.values() if a.asset == network.currency)
            free = (held.units if held else 0) + sum(on_it)
            if needed > free:
                raise InsufficientFunds(
                    f"the plan can come to {Money(needed, network.currency)} on {network.name},"
                    f" and the wallet has {Money(free, network.currency)} there"
                )


def _needed_on(network: Network, plan: Plan, home: Network) -> int:
    """Return how many units a plan can come to on a network."""
    return sum(
        node.at_most.units
        for node in plan.nodes
        if node.at_most
        and node.offer
        and node.offer.rail != "elsewhere"
        and home.network_of(node.offer.rail) is network
    )


def _frozen(graph: Graph) -> FrozenGraph:
    if isinstance(graph, FrozenGraph):
        return graph
    if not isinstance(graph, JobGraph):
        raise WrongInput(
            f"{graph!r} is not a job graph", hint='read one with ak.JobGraph.load("graph.toml")'
        )
    return graph.freeze()
