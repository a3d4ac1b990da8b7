"""LangGraph's long-term store: compared with its own in memory, and brought back from the key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import GetOp, InvalidNamespaceError, PutOp
from langgraph.store.memory import InMemoryStore
from support.memory_fixtures import elsewhere, mind

from agentkit.errors import WrongInput
from agentkit.tools import AgentKitStore

ITEMS = [
    (("users", "ann"), "likes", {"text": "tea and cats", "n": 3, "tags": ["a", "b"]}),
    (("users", "ann"), "hates", {"text": "rain", "n": 1, "at": {"city": "Oslo", "zip": "1"}}),
    (("users", "bob"), "likes", {"text": "dogs", "n": 7}),
    (("users", "bob", "old"), "likes", {"text": "cats", "n": 7}),
    (("use",), "other", {"text": "cats", "n": 2}),
]

SEARCHES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {}),
    (("users",), {}),
    (("users", "bob"), {}),
    (("use",), {}),
    (("nobody",), {}),
    (("users",), {"filter": {"n": 7}}),
    (("users",), {"filter": {"n": {"$gt": 1, "$lte": 3}}}),
    (("users",), {"filter": {"text": {"$ne": "dogs"}}}),
    (("users",), {"filter": {"at": {"city": "Oslo"}}}),
    (("users",), {"filter": {"tags": ["a", "b"]}}),
    (("users",), {"filter": {"tags": ["a"]}}),
]

LISTINGS: list[dict[str, Any]] = [
    {},
    {"max_depth": 1},
    {"prefix": ("users", "*")},
    {"suffix": ("old",)},
    {"prefix": ("users",), "suffix": ("*", "bob"), "max_depth": 2},
    {"limit": 2, "offset": 1},
]


def told(items: Sequence[Any]) -> set[str]:
    return {repr((item.namespace, item.key, item.value)) for item in items}


async def test_it_answers_what_langgraphs_own_store_answers(tmp_path: Path) -> None:
    theirs = InMemoryStore()
    async with mind(tmp_path) as one:
        ours = AgentKitStore(agent=one)
        for store in (theirs, ours):
            for namespace, key, value in ITEMS:
                await store.aput(namespace, key, {"old": True})
                await store.aput(namespace, key, value)
            await store.aput(("users", "ann"), "gone", {"n": 1})
            await store.adelete(("users", "ann"), "gone")
        await ours.adelete(("never",), "there")
        for prefix, asked in SEARCHES:
            assert told(await ours.asearch(prefix, **asked)) == told(
                await theirs.asearch(prefix, **asked)
            ), (prefix, asked)
        for asked in LISTINGS:
            assert await ours.alist_namespaces(**asked) == await theirs.alist_namespaces(**asked)
        both = [PutOp(("b",), "k", {"n": 1}), GetOp(("b",), "k"), PutOp(("b",), "k", {"n": 2})]
        for store in (theirs, ours):
            assert (await store.abatch(both))[1] is None
            item = await store.aget(("b",), "k")
            assert item
            assert item.value == {"n": 2}
        async with elsewhere(one, tmp_path) as other:
            again = AgentKitStore(agent=other)
            every = [await store.asearch((), limit=99) for store in (ours, again)]
            assert len(every[0]) == 6
            assert every[0] == every[1]  # with the times of their making and last change
            assert all(item.created_at <= item.updated_at for item in every[0])


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
