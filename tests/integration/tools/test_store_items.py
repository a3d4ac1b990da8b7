"""LangGraph's long-term store: compared with its own in memory, and brought back from the key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langgraph.store.base import GetOp, PutOp
from langgraph.store.memory import InMemoryStore
from support.memory_fixtures import elsewhere, mind

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
