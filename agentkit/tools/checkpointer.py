"""A LangGraph checkpointer over an agent's memory.

A step writes what is new: the values of channels by version, of a list that grew only what was
added, each as plain JSON.  It is durable when `put` returns, sealed and restored with the wallet.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig

from agentkit.errors import ConfigError, MissingExtra
from agentkit.memory.knowledge.kv_store import Entries, Shelf, beginning, joined, parted
from agentkit.tools.agent_loop import Remembering, memory_of, wait
from agentkit.tools.channels import ChannelValue, Get, chain, read
from agentkit.tools.serialization import ValueKind, Values

try:
    from langgraph.checkpoint.base import (
        WRITES_IDX_MAP,
        BaseCheckpointSaver,
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        get_checkpoint_id,
        get_checkpoint_metadata,
        writes_sort_key,
    )
    from langgraph.checkpoint.serde.types import _DeltaSnapshot
    from langgraph.types import Command, Interrupt, Overwrite, Send, TimeoutPolicy
except ImportError as error:
    raise MissingExtra("langgraph", "langgraph") from error

CHECKPOINT = "checkpoint"
VALUE = "value"
WRITE = "write"
NEWEST = "newest"
"""What entries are, after thread and namespace in their names."""


def _packed_send(send: Send) -> list[Any]:
    return [send.node, send.arg, send.timeout and dataclasses.asdict(send.timeout)]


def _send(node: str, arg: Any, timeout: dict[str, Any] | None) -> Send:
    return Send(node, arg, timeout=TimeoutPolicy(**timeout) if timeout else None)


def _packed_interrupt(interrupt: Interrupt) -> list[Any]:
    schema = interrupt.response_schema
    return [interrupt.value, interrupt.id, schema if isinstance(schema, dict) else None]


def _packed_command(command: Command[Any]) -> list[Any]:
    return [command.graph, command.update, command.resume, command.goto]


KINDS = (
    ValueKind("send", Send, _packed_send, lambda v: _send(*v)),
    ValueKind(
        "interrupt",
        Interrupt,
        _packed_interrupt,
        lambda v: Interrupt(v[0], v[1], response_schema=v[2]),
    ),
    ValueKind("overwrite", Overwrite, lambda v: v.value, Overwrite),
    ValueKind(
        "command",
        Command,
        _packed_command,
        lambda v: Command(graph=v[0], update=v[1], resume=v[2], goto=v[3]),
    ),
    ValueKind("snapshot", _DeltaSnapshot, lambda v: v.value, _DeltaSnapshot),
)


class _Place(NamedTuple):
    """A thread and a namespace in it."""

    thread: str
    namespace: str

    @classmethod
    def of(cls, config: RunnableConfig) -> _Place:
        known = config["configurable"]
        return cls(str(known["thread_id"]), known.get("checkpoint_ns", ""))

    def name(self, *parts: str) -> str:
        return joined(*self, *parts)

    def begin(self, *parts: str) -> str:
        return beginning(*self, *parts)

    def versions(self, entries: Entries, channel: str) -> Get:
        """Return what gets a version of a channel's value as it is stored."""
        return lambda version: entries.get(self.name(VALUE, channel, version))

    def config(self, checkpoint: str) -> RunnableConfig:
        thread, namespace = self
        where = {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}
        return {"configurable": where}


class _Read(NamedTuple):
    """A checkpoint as it is stored, its channels' values and writes with it."""

    place: _Place
    id: str
    stored: dict[str, Any]
    values: dict[str, Any]
    writes: list[tuple[str, str, Any]]


class AgentKitSaver(BaseCheckpointSaver[str]):
    """Checkpoints of LangGraph threads in an agent's memory; raises WrongInput, StateCorrupt.

    Stored are JSON, what Python's standard library and LangChain's messages add to it, and the
    pydantic models, dataclasses and enums in `allow`; nothing else is written or revived.  What
    is deleted is gone here and after a restore; the bytes that were sealed before stay on Arweave.
    Without `agent` the default agent's memory is used.
    """

    def __init__(self, *, agent: Remembering | None = None, allow: Sequence[type] = ()) -> None:
        self._values = Values(KINDS, allow)
        super().__init__(serde=self._values)
        self.agent = agent

    async def _shelf(self) -> Shelf:
        return (await memory_of(self.agent)).shelf("langgraph")

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> AgentKitSaver:
        """Return this saver: only the classes in `allow` are revived, whatever a graph names."""
        return self

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return a version above `current` that no fork of the thread has, too."""
        number = int(str(current).split(".")[0]) + 1 if current is not None else 1
        return f"{number:09d}.{secrets.token_hex(4)}"

    # -- writing ---------------------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint with its new channels; returns the config that names it."""
        place, id_ = _Place.of(config), checkpoint["id"]
        parent = config["configurable"].get("checkpoint_id")
        rest = {name: part for name, part in checkpoint.items() if name != "channel_values"}
        stored = {
            "checkpoint": self._values.encode(rest),
            "metadata": self._values.encode(get_checkpoint_metadata(config, metadata)),
            **({"parent": parent} if parent else {}),
        }
        held = checkpoint["channel_values"]
        channels = {
            n: ChannelValue.of(self._values.encode(held[n])) for n in new_versions if n in held
        }

        def write(entries: Entries) -> None:
            """Store channels as links to what the parent has, and the checkpoint as the newest."""
            before = self._versions(entries.get(place.name(CHECKPOINT, parent))) if parent else {}
            new: dict[str, Any] = {place.name(CHECKPOINT, id_): stored}
            for name in new_versions:
                version, older = str(new_versions[name]), str(before.get(name, new_versions[name]))
                channel, get = channels.get(name), place.versions(entries, name)
                links = channel.stored(version, older, get) if channel else {version: {}}
                new |= {place.name(VALUE, name, link): value for link, value in links.items()}
            if id_ > (entries.get(place.name(NEWEST)) or ""):
                new[place.name(NEWEST)] = id_
            entries.put(new)

        await (await self._shelf()).commit(write)
        return place.config(id_)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task wrote before its checkpoint; the same writes again change nothing."""
        place, id_ = _Place.of(config), config["configurable"]["checkpoint_id"]
        new: dict[str, Any] = {}
        later: set[str] = set()  # what is written again changes nothing, as with other savers
        for number, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, number)
            name = place.name(WRITE, id_, task_id, str(index))
            plain = {"channel": channel, "value": self._values.encode(value)}
            new[name] = plain | ({"path": task_path} if task_path else {})
            if index >= 0:
                later.add(name)

        def write(entries: Entries) -> None:
            entries.put({n: v for n, v in new.items() if n not in later or n not in entries})

        await (await self._shelf()).commit(write)

    # -- reading ---------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that a config names, or the newest of its thread; None for none."""
        place, asked = _Place.of(config), get_checkpoint_id(config)

        def read(entries: Entries) -> _Read | None:
            id_ = asked or entries.get(place.name(NEWEST))
            return self._read(entries, place, id_) if id_ else None

        found = await (await self._shelf()).commit(read)
        return self._tuple(found) if found else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, newest first: of one thread, or of all without a config."""
        shelf = await self._shelf()
        places = await shelf.commit(lambda entries: _listed(entries, config))
        end = get_checkpoint_id(before) if before else None
        for place, id_ in sorted(places, key=lambda found: found[1], reverse=True):
            if limit is not None and limit <= 0:
                return
            if end and id_ >= end:
                continue
            read = await shelf.commit(partial(self._read, place=place, id_=id_))
            found = self._tuple(read) if read else None
            if found and _fits(found.metadata, filter or {}):
                limit = None if limit is None else limit - 1
                yield found

    # -- deleting --------------------------------------------------------------------------------

    async def adelete_thread(self, thread_id: str) -> None:
        """Drop a thread: a tombstone, what was sealed before stays sealed on Arweave."""
        await (await self._shelf()).drop(prefixes=[beginning(str(thread_id))])

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Drop the checkpoints of runs: a tombstone, as in `delete_thread`."""
        gone = set(run_ids)

        def drop(entries: Entries) -> None:
            by_place: dict[_Place, set[str]] = {}
            for place, id_ in _listed(entries, None):
                stored = entries.get(place.name(CHECKPOINT, id_))
                if self._values.decode(stored["metadata"]).get("run_id") in gone:
                    by_place.setdefault(place, set()).add(id_)
            for place, ids in by_place.items():
                self._drop(entries, place, ids)

        await (await self._shelf()).commit(drop)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Drop all but each namespace's newest checkpoint, or with "delete" everything.

        A tombstone, as in `delete_thread`.  Threads of graphs with delta channels keep all: their
        values are spread over older checkpoints.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ConfigError(
                f"{strategy!r} is not a way to prune",
                hint='pass strategy="keep_latest" or "delete"',
            )

        def drop(entries: Entries) -> None:
            """Delete threads, or all but the newest checkpoint of each."""
            for thread in map(str, thread_ids):
                if strategy == "delete":
                    entries.drop(prefixes=[beginning(thread)])
                    continue
                by_place: dict[_Place, set[str]] = {}
                for place, id_ in _listed(entries, {"configurable": {"thread_id": thread}}):
                    by_place.setdefault(place, set()).add(id_)
                for place, ids in by_place.items():
                    if not self._has_deltas(entries, place, max(ids)):
                        self._drop(entries, place, ids - {max(ids)})

        await (await self._shelf()).commit(drop)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Write everything of a thread under the name of another."""
        source, target = str(source_thread_id), str(target_thread_id)

        def copy(entries: Entries) -> None:
            found = entries.every(beginning(source))
            entries.put({joined(target, *parted(x.name)[1:]): x.value for x in found})

        await (await self._shelf()).commit(copy)

    # -- blocking twins --------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        wait(self.aput_writes(config, writes, task_id, task_path))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints as `alist` does, for callers without a loop."""

        async def every() -> Sequence[CheckpointTuple]:
            found = self.alist(config, filter=filter, before=before, limit=limit)
            return [one async for one in found]

        yield from wait(every())

    def delete_thread(self, thread_id: str) -> None:
        """Drop a thread: a tombstone, what was sealed before stays sealed on Arweave."""
        wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Drop the checkpoints of runs: a tombstone, as in `delete_thread`."""
        wait(self.adelete_for_runs(run_ids))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `aprune`."""
        wait(self.aprune(thread_ids, strategy=strategy))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Write everything of a thread under the name of another."""
        wait(self.acopy_thread(source_thread_id, target_thread_id))

    # -- inside ----------------------------------------------------------------------------------

    def _versions(self, stored: dict[str, Any] | None) -> Mapping[str, Any]:
        """Return the versions of channels at a stored checkpoint."""
        if stored is None:
            return {}
        versions: Mapping[str, Any] = self._values.decode(stored["checkpoint"]["channel_versions"])
        return versions

    def _read(self, entries: Entries, place: _Place, id_: str) -> _Read | None:
        """Read a checkpoint with its channels and pending writes; None where there is none."""
        stored = entries.get(place.name(CHECKPOINT, id_))
        if stored is None:
            return None
        values = {}
        for name, version in self._versions(stored).items():
            get = place.versions(entries, name)
            if get(str(version)):
                values[name] = read(str(version), get)
        writes = []
        for entry in entries.every(place.begin(WRITE, id_)):
            *_, task, index = parted(entry.name)
            order = writes_sort_key(entry.value.get("path", ""), task, int(index))
            writes.append((order, (task, entry.value["channel"], entry.value["value"])))
        writes.sort(key=lambda write: write[0])
        return _Read(place, id_, stored, values, [write for _, write in writes])

    def _tuple(self, read: _Read) -> CheckpointTuple:
        """Return what was read as LangGraph has it."""
        decode = self._values.decode
        checkpoint = decode(read.stored["checkpoint"])
        checkpoint["channel_values"] = {name: decode(v) for name, v in read.values.items()}
        parent = read.stored.get("parent")
        return CheckpointTuple(
            config=read.place.config(read.id),
            checkpoint=checkpoint,
            metadata=decode(read.stored["metadata"]),
            parent_config=read.place.config(parent) if parent else None,
            pending_writes=[(task, channel, decode(v)) for task, channel, v in read.writes],
        )

    def _has_deltas(self, entries: Entries, place: _Place, id_: str) -> bool:
        stored = entries.get(place.name(CHECKPOINT, id_))
        return bool(self._values.decode(stored["metadata"]).get("counters_since_delta_snapshot"))

    def _drop(self, entries: Entries, place: _Place, ids: set[str]) -> None:
        """Drop checkpoints, their writes, and the values that no other checkpoint needs."""
        names = [place.name(CHECKPOINT, id_) for id_ in ids]
        begun = [place.begin(WRITE, id_) for id_ in ids]
        needed: set[str] = set()
        left = {id_ for other, id_ in _listed(entries, place.config("")) if other == place} - ids
        for id_ in left:
            versions = self._versions(entries.get(place.name(CHECKPOINT, id_)))
            for name, version in versions.items():
                links = chain(str(version), place.versions(entries, name))
                needed.update(place.name(VALUE, name, link) for link in links)
        values = [entry.name for entry in entries.every(place.begin(VALUE))]
        names += [name for name in values if name not in needed]
        if left:
            entries.put({place.name(NEWEST): max(left)})
        else:
            names.append(place.name(NEWEST))
        entries.drop(names, begun)


def _listed(entries: Entries, config: RunnableConfig | None) -> list[tuple[_Place, str]]:
    """Return the places and ids of the checkpoints that a config means."""
    known = config["configurable"] if config else {}
    thread, namespace = known.get("thread_id"), known.get("checkpoint_ns")
    begin = "" if thread is None else beginning(str(thread))
    if thread is not None and namespace is not None:
        begin = beginning(str(thread), namespace, CHECKPOINT)
    found = []
    for entry in entries.every(begin):
        in_thread, in_namespace, what, *parts = parted(entry.name)
        if what != CHECKPOINT or (namespace is not None and in_namespace != namespace):
            continue
        if known.get("checkpoint_id") in (None, "", parts[0]):
            found.append((_Place(in_thread, in_namespace), parts[0]))
    return found


def _fits(metadata: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    return all(metadata.get(name) == value for name, value in asked.items())
