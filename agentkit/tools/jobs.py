"""LangChain tools that plan and run job graphs.

Planning is free.  Running takes the id of a plan and never a graph, so a model can only buy what
was priced and shown before.
"""

from __future__ import annotations

from typing import Any

from langchain_core.tools import BaseTool, ToolException
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from agentkit.agent import Agent
from agentkit.errors import BadAmount, GraphError, PlanError, RunFailed
from agentkit.graph import codec
from agentkit.market.plan import Plan
from agentkit.runtime.result import RunResult
from agentkit.tools.agent_loop import acall, call


class Plans:
    """The plans that were made through one toolkit, by id."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}

    def add(self, plan: Plan) -> str:
        """Store a plan and return the id by which it is run."""
        self._plans[plan.id[:12]] = plan
        return plan.id[:12]

    def take(self, plan_id: str) -> Plan:
        """Return a plan and forget it, so that it can run only once; raises ToolException."""
        plan = self._plans.pop(plan_id, None)
        if plan is None:
            raise ToolException(f"there is no plan {plan_id!r}; make one with plan_jobs")
        return plan


class PlanJobsInput(BaseModel):
    """The arguments of `plan_jobs`."""

    graph: dict[str, Any] = Field(
        description='A job graph: {"name", "nodes": [{"kind": "infer", "name", "model", "prompt"}]}'
    )
    budget: str = Field(description='The most it may cost, like "0.05 USDC".')


class RunPlanInput(BaseModel):
    """The arguments of `run_plan`."""

    plan_id: str = Field(description="The id that plan_jobs returned.")


class PlanJobs(BaseTool):
    """The tool that prices a job graph; it spends nothing."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str = "plan_jobs"
    description: str = "Price a job graph across networks. Free. Returns a plan id and the prices."
    args_schema: type[BaseModel] = PlanJobsInput
    handle_tool_error: bool = True
    agent: Agent | None = Field(default=None, exclude=True)
    _plans: Plans = PrivateAttr(default_factory=Plans)

    def _run(self, graph: dict[str, Any], budget: str, **_: Any) -> str:
        return call(self.agent, lambda agent: self._plan(agent, graph, budget))

    async def _arun(self, graph: dict[str, Any], budget: str, **_: Any) -> str:
        return await acall(self.agent, lambda agent: self._plan(agent, graph, budget))

    async def _plan(self, agent: Agent, graph: dict[str, Any], budget: str) -> str:
        """Plan a graph and return the plan's id and prices; raises ToolException."""
        try:
            plan = await agent.plan(codec.decode(graph), budget=budget, balance=False)
        except (PlanError, GraphError, BadAmount) as error:
            raise ToolException(f"{error} ({error.hint})") from error
        return f"plan_id: {self._plans.add(plan)}\n{plan}"


class RunPlan(BaseTool):
    """The tool that runs a plan; it spends at most what the plan shows.

    A purchase with an unknown outcome raises RunPaused: a person has to decide, not the model.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str = "run_plan"
    description: str = "Run a plan that plan_jobs made, by its id. Spends at most what it showed."
    args_schema: type[BaseModel] = RunPlanInput
    response_format: str = "content_and_artifact"  # type: ignore[assignment]  # a Literal there
    handle_tool_error: bool = True
    agent: Agent | None = Field(default=None, exclude=True)
    _plans: Plans = PrivateAttr(default_factory=Plans)

    def _run(self, plan_id: str, **_: Any) -> tuple[str, RunResult]:
        return call(self.agent, lambda agent: self._run_plan(agent, plan_id))

    async def _arun(self, plan_id: str, **_: Any) -> tuple[str, RunResult]:
        return await acall(self.agent, lambda agent: self._run_plan(agent, plan_id))

    async def _run_plan(self, agent: Agent, plan_id: str) -> tuple[str, RunResult]:
        """Run a plan; return a text for the model, with the start of each output, and the result.

        Raises ToolException.
        """
        try:
            result = await agent.run(self._plans.take(plan_id))
        except (PlanError, GraphError, RunFailed) as error:
            raise ToolException(f"{error} ({error.hint})") from error
        texts = {
            name: [output.read()[:2000].decode(errors="replace") for output in outputs]
            for name, outputs in result.artifacts.items()
        }
        return str({**result.data(), "outputs": texts}), result


def toolkit(agent: Agent | None = None) -> list[BaseTool]:
    """Return `plan_jobs` and `run_plan` over one agent, or the default one."""
    plan_jobs = PlanJobs(agent=agent)
    run_plan = RunPlan(agent=agent)
    run_plan._plans = plan_jobs._plans
    return [plan_jobs, run_plan]
