"""A LangChain tool that fetches addresses which ask for a payment, under a budget for each call."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.tools import BaseTool, ToolException
from pydantic import BaseModel, ConfigDict, Field

from agentkit.agent import Agent
from agentkit.errors import GraphError, PlanError, ProviderError, RunFailed
from agentkit.fetching import Fetched
from agentkit.tools.agent_loop import acall, call

SHOWN = 20_000
"""How many characters of an answer a model is shown."""


class FetchInput(BaseModel):
    """The arguments of `fetch`."""

    url: str = Field(description="The address, https://...")
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    body: dict[str, Any] | str | None = Field(default=None, description="JSON object, or text.")


class FetchPaid(BaseTool):
    """The tool that fetches an address and pays it where it asks for that.

    `budget` is the most that one call may cost; the person who makes the tool sets it, and not the
    model.  What all calls may cost is for the agent's allowance.  A purchase with an unknown
    outcome raises RunPaused: a person has to decide.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str = "fetch"
    description: str = "Fetch a web address. Where it asks for a payment (x402), it is paid."
    args_schema: type[BaseModel] = FetchInput
    response_format: str = "content_and_artifact"  # type: ignore[assignment]  # a Literal there
    handle_tool_error: bool = True
    budget: str
    agent: Agent | None = Field(default=None, exclude=True)

    def _run(self, **request: Any) -> tuple[str, Fetched]:
        return call(self.agent, lambda agent: self._fetch(agent, request))

    async def _arun(self, **request: Any) -> tuple[str, Fetched]:
        return await acall(self.agent, lambda agent: self._fetch(agent, request))

    async def _fetch(self, agent: Agent, request: dict[str, Any]) -> tuple[str, Fetched]:
        """Return what a model is shown of an answer, and the answer; raises ToolException."""
        wanted = {name: request[name] for name in ("method", "body") if name in request}
        try:
            answer = await agent.fetch(request["url"], budget=self.budget, **wanted)
        except (PlanError, GraphError, ProviderError, RunFailed) as error:
            raise ToolException(f"{error} ({error.hint})") from error
        paid = f"paid {answer.paid}" if answer.paid else "nothing was paid"
        text = answer.body.decode(errors="replace")[:SHOWN]
        return f"status {answer.status}, {paid}\n{text}", answer
