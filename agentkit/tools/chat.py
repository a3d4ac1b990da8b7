"""A LangChain chat model whose every call is a one-node graph: priced, held, paid, receipted."""

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
from agentkit.tools.spending_limit import Purse

NODE = "chat"


class ChatAgentKit(BaseChatModel):
    """Ask a model by name, wherever it is cheapest, and pay for each answer.

    `budget` is the limit over the life of this object; each call holds only its own at most.
    Without `agent` the default agent is used.  The receipt stands in
    `response_metadata["agentkit"]`.  Raises OverBudget before a call that could exceed the budget,
    and what planning and running raise.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str
    budget: str = "1 USDC"
    policy: Choose | None = Field(default=None, exclude=True)
    agent: Agent | None = Field(default=None, exclude=True)
    max_tokens: int = 256
    temperature: float = 0.0
    stop: list[str] | None = None

    _purse: Purse = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._purse = Purse(self.budget)

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
        """Buy one answer; blocks. `run_manager` and what follows is LangChain's and not used."""
        graph = self._graph(messages, stop)
        return call(self.agent, lambda agent: self._ask(agent, graph))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Buy one answer, as `_generate` does, on the caller's loop."""
        graph = self._graph(messages, stop)
        return await acall(self.agent, lambda agent: self._ask(agent, graph))

    def _graph(self, messages: list[BaseMessage], stop: list[str] | None) -> JobGraph:
        """Return the one-node graph of a call; braces in messages are literal."""
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
        plan = await agent.plan(graph, policy=self.policy, balance=False)
        with self._purse.holding(plan) as spent:
            result = await agent.run(plan)
            spent.append(result)
        return _chat_result(result, plan)


def as_prompt(messages: list[BaseMessage]) -> str:
    """Return a conversation as one prompt; a single message stays as it is."""
    if len(messages) == 1:
        return str(messages[0].text)
    names = {"human": "User", "ai": "Assistant", "system": "System"}
    lines = [f"{names.get(message.type, message.type)}: {message.text}" for message in messages]
    return "\n".join([*lines, "Assistant:"])


def _chat_result(result: RunResult, plan: Plan) -> ChatResult:
    """Return an answer as LangChain has it, with its price and receipt in the metadata."""
    receipt = result.receipts[-1]
    usage = receipt.usage
    tokens_in, tokens_out = usage.get("input", 0), usage.get("output", 0)
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
