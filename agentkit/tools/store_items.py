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
from agentkit.memory.knowledge.kv_store import Entries, join_name
from agentkit.memory.knowledge.search import Embed, bm25_scores, cosine_scores
from agentkit.tools.agent_loop import HasMemory, memory_of, wait
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
    """LangGraph's store of JSON items; writes are durable when a call returns.

    Items are sealed and restored with the wallet.  A query ranks items by the words of their whole
    value, or with `embed` by its vector.  A deleted item is gone on this machine and after a
    restore, but bytes that were sealed before stay on Arweave.  Without `agent` the default agent's
    memory is used.
    """

    def __init__(self, *, agent: HasMemory | None = None, embed: Embed | None = None) -> None:
        self.agent = agent
        self.embed = embed
        self._values = Values()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        return wait(self.abatch(ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do operations in one transaction: all reads first, then all writes."""
        operations = list(ops)
        for op in operations:
            validate_op_namespace(op)
        puts = [op for op in operations if isinstance(op, PutOp)]
        new_items = {_name(op.namespace, op.key): self._stored(op) for op in puts}

        def work(entries: Entries) -> list[Any]:
            answers = [_read(entries, op) for op in operations]
            _write(entries, new_items)
            return answers

        memory = await memory_of(self.agent)
        answers = await memory.shelf("items").commit(work)
        return [
            await self._result(memory, op, answer)
            for op, answer in zip(operations, answers, strict=True)
        ]

    # -- inside ----------------------------------------------------------------------------------

    def _stored(self, op: PutOp) -> dict[str, Any] | None:
        """Return an item in the form in which it is stored, None for one to be deleted."""
        if op.value is None:
            return None
        stored = {"item": self._values.encode(dict(op.value))}
        return stored | ({"unsearched": True} if op.index is False else {})

    async def _result(self, memory: Knowledge, op: Op, answer: Any) -> Result:
        """Return the result of an operation from what `_read` returned for it."""
        if isinstance(op, GetOp):
            return Item(**self._fields(answer)) if answer else None
        if isinstance(op, SearchOp):
            return await self._search(memory, op, answer)
        if isinstance(op, ListNamespacesOp):
            return _namespaces(answer, op)
        return None

    async def _search(
        self, memory: Knowledge, op: SearchOp, entries: Sequence[Entry]
    ) -> list[SearchItem]:
        """Return the items that match a search, the best score first; unscored ones come last."""
        matching: list[tuple[Entry, dict[str, Any]]] = []
        for entry in entries:
            fields = self._fields(entry)
            if _fits(fields["value"], op.filter or {}):
                matching.append((entry, fields))

        scores: dict[str, float] = {}  # by the entry's name
        if op.query:
            searched = [entry for entry, _ in matching if "unsearched" not in entry.value]
            texts = [json.dumps(entry.value["item"], ensure_ascii=False) for entry in searched]
            values = await self._scores(memory, texts, op.query)
            for entry, score in zip(searched, values, strict=True):
                scores[entry.name] = score

        below_any_score = -2.0  # a cosine is -1 at least, a BM25 score 0
        ranked = sorted(
            matching,
            key=lambda match: scores.get(match[0].name, below_any_score),
            reverse=True,
        )
        results = [SearchItem(**fields, score=scores.get(entry.name)) for entry, fields in ranked]
        return results[op.offset : op.offset + op.limit]

    async def _scores(self, memory: Knowledge, texts: list[str], query: str) -> list[float]:
        """Return how well each text matches a query, by its words or by its vector."""
        if self.embed is None:
            return bm25_scores(texts, query)
        return await cosine_scores(texts, query, embed=self.embed, folder=memory.vectors)

    def _fields(self, entry: Entry) -> dict[str, Any]:
        """Return the fields that every item of LangGraph's store has."""
        namespace, key = _split_name(entry.name)
        return {
            "namespace": namespace,
            "key": key,
            "value": self._values.decode(entry.value["item"]),
            "created_at": datetime.fromtimestamp(entry.value.get("since", entry.at), UTC),
            "updated_at": datetime.fromtimestamp(entry.at, UTC),
        }


def _read(entries: Entries, op: Op) -> Any:
    """Return the entries, or the namespaces, that an operation reads; None if it only writes."""
    if isinstance(op, GetOp):
        return entries.entry(_name(op.namespace, op.key))
    if isinstance(op, SearchOp):
        # Without its last bracket, `["a"]` is also a prefix of `["a","b"]`.
        return entries.every(join_name(*op.namespace_prefix)[:-1] if op.namespace_prefix else "")
    if isinstance(op, ListNamespacesOp):
        return {_split_name(entry.name)[0] for entry in entries.every()}
    return None


def _write(entries: Entries, new_items: Mapping[str, dict[str, Any] | None]) -> None:
    """Write items, each with the time of its first version, and drop those that are None."""
    to_put: dict[str, Any] = {}
    for name, item in new_items.items():
        if item is None:
            continue
        earlier = entries.entry(name)
        since = {"since": earlier.value.get("since", earlier.at)} if earlier else {}
        to_put[name] = item | since
    entries.put(to_put)
    entries.drop(name for name, item in new_items.items() if item is None)


def _name(namespace: Namespace, key: str) -> str:
    """Return an item's name on the shelf; names of one namespace have the same prefix."""
    return join_name(*namespace) + join_name(key)


def _split_name(name: str) -> tuple[Namespace, str]:
    """Return the namespace and the key of an item's name, which is two JSON lists in a row."""
    namespace, end = json.JSONDecoder().raw_decode(name)
    (key,) = json.loads(name[end:])
    return tuple(namespace), key


def _namespaces(namespaces: Iterable[Namespace], op: ListNamespacesOp) -> list[Namespace]:
    """Return the namespaces that an operation lists, cut to its depth, without repetition."""
    conditions = op.match_conditions or ()
    matching = [
        namespace
        for namespace in namespaces
        if all(_matches(condition, namespace) for condition in conditions)
    ]
    cut = sorted({namespace[: op.max_depth] for namespace in matching})
    return cut[op.offset : op.offset + op.limit]


def _matches(condition: MatchCondition, namespace: Namespace) -> bool:
    """Whether a namespace begins or ends with a path, in which "*" matches any label."""
    path = condition.path
    if len(namespace) < len(path):
        return False
    is_prefix = condition.match_type == "prefix"
    labels = namespace[: len(path)] if is_prefix else namespace[-len(path) :]
    return all(expected in ("*", label) for expected, label in zip(path, labels, strict=False))


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value fits a filter: equal values, parts of objects, or comparisons like `$gt`."""
    if isinstance(wanted, Mapping):
        if any(str(name).startswith("$") for name in wanted):
            return all(_compares(value, name, operand) for name, operand in wanted.items())
        return isinstance(value, Mapping) and all(
            _fits(value.get(name), part) for name, part in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        same_length = isinstance(value, list | tuple) and len(value) == len(wanted)
        return same_length and all(map(_fits, value, wanted))
    return bool(value == wanted)


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def _compares(value: Any, name: str, operand: Any) -> bool:
    """Whether a comparison holds; those of order compare as numbers.  Raises WrongInput."""
    if name not in COMPARISONS:
        raise WrongInput(
            f"{name!r} is not a comparison",
            hint=f"use one of {', '.join(COMPARISONS)} in a filter",
        )
    if name in ("$eq", "$ne"):
        return bool(COMPARISONS[name](value, operand))
    return bool(COMPARISONS[name](float(value), float(operand)))
