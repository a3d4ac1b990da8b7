"""LangGraph's long-term store: compared with its own in memory, and brought back from the key."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from langgraph.store.base import InvalidNamespaceError, PutOp
from support.memory_fixtures import mind

from agentkit.errors import WrongInput
from agentkit.tools import AgentKitStore


async def test_a_query_ranks_by_words_or_by_an_embedding(tmp_path: Path) -> None:
    asked: list[str] = []

    async def vowels(texts: Sequence[str]) -> list[list[float]]:
        asked.extend(texts)
        return [[0.1 + text.count(x) for x in "aeiou"] for text in texts]

    async with mind(tmp_path) as one:
        store = AgentKitStore(agent=one)
        for key, text in (("x", "the dog"), ("y", "a cat, a cat"), ("z", "one cat of many")):
            await store.aput(("n",), key, {"text": text})
        await store.aput(("n",), "w", {"text": "cat cat cat"}, index=False)
        found = await store.asearch(("n",), query="cat", limit=3)
        assert [item.key for item in found] == ["y", "z", "x"]
        assert found[0].score > found[1].score > found[2].score == 0
        meant = AgentKitStore(agent=one, embed=vowels)
        found = await meant.asearch(("n",), query="o" * 9, limit=9)
        assert [item.key for item in found] == ["z", "x", "y", "w"]
        assert found[-1].score is None
        assert not any("cat cat cat" in text for text in asked)


def test_blocking_calls_work_and_bad_ones_are_refused(tmp_path: Path) -> None:
    import asyncio

    async def go() -> None:
        async with mind(tmp_path) as one:
            store = AgentKitStore(agent=one)
            store.put(("a",), "k", {"n": 1})
            item = store.get(("a",), "k")
            assert item
            assert (item.namespace, item.key, item.value) == (("a",), "k", {"n": 1})
            with pytest.raises(WrongInput, match="not a comparison"):
                store.search(("a",), filter={"n": {"$like": 1}})
            with pytest.raises(InvalidNamespaceError):
                store.batch([PutOp(("a.b",), "k", {})])
            with pytest.raises(WrongInput, match="cannot be stored"):
                store.put(("a",), "k", {"n": object()})
            with pytest.raises(NotImplementedError):
                store.put(("a",), "k", {"n": 1}, ttl=1)

    asyncio.run(go())
