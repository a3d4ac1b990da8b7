"""Embeddings that are bought: by LangChain's suite, within a budget, for what an agent knows."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

from agentkit import sync
from agentkit.errors import OverBudget
from agentkit.planner import policy
from agentkit.tools import AgentKitEmbeddings

MODEL = "all-minilm-l6-v2"


class TestSuite(EmbeddingsIntegrationTests):
    """LangChain's own, with the default agent."""

    @pytest.fixture(autouse=True)
    def default_agent(self, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(sync, "_background", None)
        yield
        sync.background().close()

    @property
    def embeddings_class(self) -> type[AgentKitEmbeddings]:
        return AgentKitEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": MODEL, "policy": policy.allow("native")}


async def test_what_is_known_is_found_by_meaning_and_each_text_is_paid_once(
    open_agent: Any,
) -> None:
    async with open_agent() as agent:
        embed = AgentKitEmbeddings(model=MODEL, agent=agent, policy=policy.allow("native"))
        for text in ("The kitten slept on the sofa.", "GPU {hours} got dearer in May."):
            await agent.memory.note("seen", text)
        await agent.memory.remember("cheapest model", "smollm2-135m")
        (best,) = await agent.memory.search("small cats", 1, embed=embed)
        assert best.text == "The kitten slept on the sofa."
        bought = len(await agent.receipts())
        assert bought == 4
        (best,) = await agent.memory.search("the cost of graphics cards went up", 1, embed=embed)
        assert best.text == "GPU {hours} got dearer in May."
        assert len(await agent.receipts()) == bought + 1  # the question alone
        known = await agent.memory.recall("cheapest model")
        await agent.memory.remember("dim", 384, receipt=(await agent.receipts())[0])
        assert await agent.memory.receipts_of(known) == []
        dim = await agent.memory.recall("dim")
        assert await agent.memory.receipts_of(dim) == (await agent.receipts())[:1]
        poor = AgentKitEmbeddings(model=MODEL, agent=agent, budget="0.000001 USDC")
        with pytest.raises(OverBudget):
            await poor.aembed_query("x" * 200)
        assert len(await asyncio.to_thread(embed.embed_query, "other thread")) == 384
