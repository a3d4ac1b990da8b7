"""A LangChain chat model: each call plans and runs a graph of one node, and has a receipt."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import ConfigDict, Field, PrivateAttr

from agentkit.agent import Agent
from agentkit.graph.builder import JobGraph
from agentkit.market.plan import Plan
from agentkit.planner.policy import Choose
from agentkit.runtime.result import RunResult
from agentkit.tools.agent_loop import acall, call
from agentkit.tools.spending_limit import SpendingLimit

NODE = "chat"


class ChatAgentKit(BaseChatModel):
    """Asks a model at the cheapest provider that offers it, and pays for each answer.

    `budget` is the limit for all calls of this object together.  Without `agent` the default agent
    is used.  The receipt of an answer is in `response_metadata["agentkit"]`.  Raises OverBudget
    before a call that could exceed the budget, and what planning and running raise.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str
    budget: str = "1 USDC"
    policy: Choose | None = Field(default=None, exclude=True)
    agent: Agent | None = Field(default=None, exclude=True)
    max_tokens: int = 256
    temperature: float = 0.0
    stop: list[str] | None = None

    _spending_limit: SpendingLimit = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._spending_limit = SpendingLimit(self.budget)

    @property
    def _llm_type(self) -> str:
        return "agentkit"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "max_tokens": self.max_tokens, "budget": self.budget}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Buy one answer; blocks.  LangChain's `run_manager` and `kwargs` are not used."""
        graph = self._graph(messages, stop)
        return call(self.agent, lambda agent: self._ask(agent, graph))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Buy one answer, as `_generate` does, without blocking."""
        graph = self._graph(messages, stop)
        return await acall(self.agent, lambda agent: self._ask(agent, graph))

    def _graph(self, messages: list[BaseMessage], stop: list[str] | None) -> JobGraph:
        """Return the graph of one call.

        Braces in messages are doubled, because prompts of a graph are templates.
        """
        graph = JobGraph("chat")
        prompt = as_prompt(messages).replace("{", "{{").replace("}", "}}")
        graph.infer(
            NODE,
            model=self.model,
            prompt=prompt,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            stop=tuple(stop or self.stop or ()),
        )
        return graph

    async def _ask(self, agent: Agent, graph: JobGraph) -> ChatResult:
        """Plan and run a graph within the budget, and return its answer."""
        plan = await agent.plan(graph, policy=self.policy, balance=False)
        with self._spending_limit.holding(plan) as spent:
            result = await agent.run(plan)
            spent.append(result)
        return _chat_result(result, plan)


def as_prompt(messages: list[BaseMessage]) -> str:
    """Return a conversation as one prompt, a line for each message; a single one is unchanged."""
    if len(messages) == 1:
        return str(messages[0].text)
    names = {"human": "User", "ai": "Assistant", "system": "System"}
    lines = [f"{names.get(message.type, message.type)}: {message.text}" for message in messages]
    return "\n".join([*lines, "Assistant:"])


def _chat_result(result: RunResult, plan: Plan) -> ChatResult:
    """Return an answer in LangChain's form, with its price and receipt in the metadata."""
    receipt = result.receipts[-1]
    tokens_in = receipt.usage.get("input", 0)
    tokens_out = receipt.usage.get("output", 0)
    offer = plan.node(NODE).offer
    message = AIMessage(
        content=result[NODE].read().decode(),
        response_metadata={
            "model_name": offer.model if offer else "",
            "agentkit": {
                "run": result.run_id,
                "provider": receipt.attempt.provider,
                "paid": str(result.paid),
                "standing": receipt.standing,
                "receipt": receipt.model_dump(mode="json"),
            },
        },
        usage_metadata={
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
    )
    return ChatResult(generations=[ChatGeneration(message=message)])
