"""LangGraph's long-term store in an agent's memory: items by namespace and key."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from agentkit.errors import MissingExtra, WrongInput
from agentkit.journal.records import Entry
from agentkit.memory.knowledge.knowledge import Knowledge
from agentkit.memory.knowledge.kv_store import Entries, joined
from agentkit.memory.knowledge.search import Embed, alike, shared_words
from agentkit.tools.agent_loop import Remembering, memory_of, wait
from agentkit.tools.serialization import Values

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        Item,
        ListNamespacesOp,
        MatchCondition,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        validate_op_namespace,
    )
except ImportError as error:
    raise MissingExtra("langgraph", "langgraph") from error

Namespace: TypeAlias = tuple[str, ...]


class AgentKitStore(BaseStore):
    """Items of plain JSON, durable when a call returns, sealed and restored with the wallet.

    A query ranks by words, or by the vectors of `embed` where it is given, over an item's whole
    value.  What is deleted is gone here and after a restore; the bytes that were sealed before
    stay on Arweave.  Without `agent` the default agent's memory is used.
    """

    def __init__(self, *, agent: Remembering | None = None, embed: Embed | None = None) -> None:
        self.agent, self.embed = agent, embed
        self._values = Values()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        return wait(self.abatch(ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what is asked in one transaction: first what reads, then what writes."""
        asked = list(ops)
        for op in asked:
            validate_op_namespace(op)
        puts = [op for op in asked if isinstance(op, PutOp)]
        new = {_name(op.namespace, op.key): self._stored(op) for op in puts}

        def do(entries: Entries) -> list[Any]:
            read = [_read(entries, op) for op in asked]
            _write(entries, new)
            return read

        memory = await memory_of(self.agent)
        found = await memory.shelf("items").commit(do)
        return [await self._result(memory, op, read) for op, read in zip(asked, found, strict=True)]

    # -- inside ----------------------------------------------------------------------------------

    def _stored(self, op: PutOp) -> dict[str, Any] | None:
        """Return an item as it is stored, None for one that is to be deleted."""
        if op.value is None:
            return None
        stored = {"item": self._values.encode(dict(op.value))}
        return stored | ({"unsearched": True} if op.index is False else {})

    async def _result(self, memory: Knowledge, op: Op, read: Any) -> Result:
        if isinstance(op, GetOp):
            return Item(**self._fields(read)) if read else None
        if isinstance(op, SearchOp):
            return await self._found(memory, op, read)
        if isinstance(op, ListNamespacesOp):
            return _namespaces(read, op)
        return None

    async def _found(
        self, memory: Knowledge, op: SearchOp, entries: Sequence[Entry]
    ) -> list[SearchItem]:
        """Return the items that match a search, the best score first; unscored ones come last."""
        items = [(entry, self._fields(entry)) for entry in entries]
        items = [(entry, item) for entry, item in items if _fits(item["value"], op.filter or {})]
        scores: list[float | None] = [None] * len(items)
        if op.query:
            looked = [n for n, (entry, _) in enumerate(items) if "unsearched" not in entry.value]
            texts = [json.dumps(items[n][0].value["item"], ensure_ascii=False) for n in looked]
            for n, score in zip(looked, await self._scores(memory, texts, op.query), strict=True):
                scores[n] = score
        ranked = sorted(
            zip(scores, items, strict=True),
            key=lambda x: -2.0 if x[0] is None else x[0],
            reverse=True,
        )
        found = [SearchItem(**item, score=score) for score, (_, item) in ranked]
        return found[op.offset : op.offset + op.limit]

    async def _scores(self, memory: Knowledge, texts: list[str], query: str) -> list[float]:
        if self.embed is None:
            return shared_words(texts, query)
        return await alike(texts, query, self.embed, memory.vectors)

    def _fields(self, entry: Entry) -> dict[str, Any]:
        """Return the fields that every item of LangGraph's store has."""
        namespace, key = _parted(entry.name)
        return {
            "namespace": namespace,
            "key": key,
            "value": self._values.decode(entry.value["item"]),
            "created_at": datetime.fromtimestamp(entry.value.get("since", entry.at), UTC),
            "updated_at": datetime.fromtimestamp(entry.at, UTC),
        }


def _read(entries: Entries, op: Op) -> Any:
    if isinstance(op, GetOp):
        return entries.entry(_name(op.namespace, op.key))
    if isinstance(op, SearchOp):
        return entries.every(joined(*op.namespace_prefix)[:-1] if op.namespace_prefix else "")
    if isinstance(op, ListNamespacesOp):
        return {_parted(entry.name)[0] for entry in entries.every()}
    return None


def _write(entries: Entries, new: Mapping[str, dict[str, Any] | None]) -> None:
    """Write items, since when they are there with them, and drop those that are none."""
    put = {}
    for name, stored in new.items():
        before = entries.entry(name)
        if stored is not None:
            since = {"since": before.value.get("since", before.at)} if before else {}
            put[name] = stored | since
    entries.put(put)
    entries.drop(name for name, stored in new.items() if stored is None)


def _name(namespace: Namespace, key: str) -> str:
    """Return what an item is called on the shelf; names of one namespace begin alike."""
    return joined(*namespace) + joined(key)


def _parted(name: str) -> tuple[Namespace, str]:
    namespace, end = json.JSONDecoder().raw_decode(name)
    (key,) = json.loads(name[end:])
    return tuple(namespace), key


def _namespaces(known: Iterable[Namespace], op: ListNamespacesOp) -> list[Namespace]:
    fitting = [n for n in known if all(_matches(c, n) for c in op.match_conditions or ())]
    cut = sorted({namespace[: op.max_depth] for namespace in fitting})
    return cut[op.offset : op.offset + op.limit]


def _matches(condition: MatchCondition, namespace: Namespace) -> bool:
    path = condition.path
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[-len(path) :]
    return all(asked in ("*", label) for asked, label in zip(path, part, strict=False))


def _fits(value: Any, asked: Any) -> bool:
    """Whether a value is what a filter asks for: parts of objects, or comparisons like `$gt`."""
    if isinstance(asked, Mapping):
        if any(str(name).startswith("$") for name in asked):
            return all(_compares(value, how, other) for how, other in asked.items())
        return isinstance(value, Mapping) and all(
            _fits(value.get(name), part) for name, part in asked.items()
        )
    if isinstance(asked, list | tuple):
        alike_long = isinstance(value, list | tuple) and len(value) == len(asked)
        return alike_long and all(map(_fits, value, asked))
    return bool(value == asked)


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def _compares(value: Any, how: str, other: Any) -> bool:
    if how not in COMPARISONS:
        raise WrongInput(
            f"{how!r} is not a comparison", hint=f"use one of {', '.join(COMPARISONS)} in a filter"
        )
    if how in ("$eq", "$ne"):
        return bool(COMPARISONS[how](value, other))
    return bool(COMPARISONS[how](float(value), float(other)))
