"""LangChain embeddings: texts are embedded by paid tasks, each with a receipt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from langchain_core.embeddings import Embeddings

from agentkit.agent import Agent
from agentkit.artifacts import Embedding
from agentkit.graph.builder import JobGraph
from agentkit.planner.policy import Choose
from agentkit.tools.agent_loop import acall, call
from agentkit.tools.spending_limit import SpendingLimit

MOST_NODES = 30
"""How many texts are embedded in one graph: the planner finds the optimum for so many nodes."""


class AgentKitEmbeddings(Embeddings):
    """Embeds texts with a model at the cheapest provider that offers it.

    `budget` is the limit for all calls of this object together.  Without `agent` the default agent
    is used.  It can be passed to `agent.memory.search(..., embed=)` too.  Raises OverBudget before
    a call that could exceed the budget, and what planning and running raise.
    """

    def __init__(
        self,
        *,
        model: str,
        budget: str = "1 USDC",
        policy: Choose | None = None,
        agent: Agent | None = None,
    ) -> None:
        self.model = model
        self.policy = policy
        self.agent = agent
        self._spending_limit = SpendingLimit(budget)

    @property
    def name(self) -> str:
        """The name under which the memory caches vectors of this model."""
        return f"agentkit:{self.model}"

    async def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), MOST_NODES):
            graph = self._graph(texts[start : start + MOST_NODES])
            vectors += await acall(self.agent, partial(self._buy, graph=graph))
        return vectors

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return await self(texts)

    async def aembed_query(self, text: str) -> list[float]:
        (vector,) = await self([text])
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        for start in range(0, len(texts), MOST_NODES):
            graph = self._graph(texts[start : start + MOST_NODES])
            vectors += call(self.agent, partial(self._buy, graph=graph))
        return vectors

    def embed_query(self, text: str) -> list[float]:
        (vector,) = self.embed_documents([text])
        return vector

    def _graph(self, texts: Sequence[str]) -> JobGraph:
        """Return a graph with a node for each text; braces are doubled, as in `ChatAgentKit`."""
        graph = JobGraph("embed")
        for number, text in enumerate(texts):
            prompt = text.replace("{", "{{").replace("}", "}}")
            graph.infer(f"text-{number}", model=self.model, prompt=prompt, output=Embedding)
        return graph

    async def _buy(self, agent: Agent, graph: JobGraph) -> list[list[float]]:
        """Plan and run a graph within the budget, and return its vectors in order."""
        plan = await agent.plan(graph, policy=self.policy, balance=False)
        with self._spending_limit.holding(plan) as spent:
            result = await agent.run(plan)
            spent.append(result)
        outputs = [result[graph.ref(node.name)] for node in plan.graph.nodes]
        return [output.rows()[0]["vector"] for output in outputs]
