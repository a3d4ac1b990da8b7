"""A LangGraph checkpointer that stores in an agent's memory.

Each step stores only what is new: the changed channels by version, and of a list that grew only
the added parts, as plain JSON.  It is durable when `put` returns, and is sealed and restored with
the wallet.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig

from agentkit.errors import ConfigError, MissingExtra
from agentkit.memory.knowledge.kv_store import Entries, Shelf, join_name, name_prefix, split_name
from agentkit.tools.agent_loop import HasMemory, memory_of, wait
from agentkit.tools.channels import ChannelValue, chain, read
from agentkit.tools.checkpoint_place import CHECKPOINT, NEWEST, VALUE, WRITE, CheckpointPlace
from agentkit.tools.serialization import Values

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
except ImportError as error:
    raise MissingExtra("langgraph", "langgraph") from error

from agentkit.tools.langgraph_values import KINDS


class _StoredCheckpoint(NamedTuple):
    """A checkpoint as it is stored, with its channels' values and its pending writes, encoded."""

    place: CheckpointPlace
    id: str
    stored: dict[str, Any]
    values: dict[str, Any]
    writes: list[tuple[str, str, Any]]


class AgentKitSaver(BaseCheckpointSaver[str]):
    """Stores checkpoints of LangGraph threads in an agent's memory.

    Values may be JSON, common types of Python's standard library, LangChain's messages, and the
    pydantic models, dataclasses and enums in `allow`.  No other class is written (WrongInput) or
    read (StateCorrupt).  A deleted checkpoint is gone on this machine and after a restore, but
    bytes that were sealed before stay on Arweave.  Without `agent` the default agent's memory is
    used.
    """

    def __init__(self, *, agent: HasMemory | None = None, allow: Sequence[type] = ()) -> None:
        self._values = Values(KINDS, allow)
        super().__init__(serde=self._values)
        self.agent = agent

    async def _shelf(self) -> Shelf:
        return (await memory_of(self.agent)).shelf("langgraph")

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> AgentKitSaver:
        """Return this saver unchanged: a graph cannot add to the classes in `allow`."""
        return self

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return a version above `current`; a random part makes it unique among forks."""
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
        """Store a checkpoint with its changed channels; return the config that names it."""
        place = CheckpointPlace.of(config)
        id_ = checkpoint["id"]
        parent = config["configurable"].get("checkpoint_id")

        # Encoded before the transaction, which must be short.  Channel values are separate entries.
        without_values = {
            name: part for name, part in checkpoint.items() if name != "channel_values"
        }
        stored = {
            "checkpoint": self._values.encode(without_values),
            "metadata": self._values.encode(get_checkpoint_metadata(config, metadata)),
            **({"parent": parent} if parent else {}),
        }
        values = checkpoint["channel_values"]
        channels = {
            name: ChannelValue.of(self._values.encode(values[name]))
            for name in new_versions
            if name in values
        }

        def write(entries: Entries) -> None:
            """Store the checkpoint, and its channels as additions to those of its parent."""
            parent_versions: Mapping[str, Any] = {}
            if parent:
                parent_versions = self._versions(entries.get(place.name(CHECKPOINT, parent)))
            new_entries: dict[str, Any] = {place.name(CHECKPOINT, id_): stored}
            for name, new_version in new_versions.items():
                version = str(new_version)
                older = str(parent_versions.get(name, new_version))
                channel = channels.get(name)
                links: dict[str, Any] = {version: {}}  # of a channel that has become empty
                if channel:
                    links = channel.stored(version, older, place.versions(entries, name))
                for link, value in links.items():
                    new_entries[place.name(VALUE, name, link)] = value
            if id_ > (entries.get(place.name(NEWEST)) or ""):
                new_entries[place.name(NEWEST)] = id_
            entries.put(new_entries)

        await (await self._shelf()).commit(write)
        return place.config(id_)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the pending writes of a task, those made after its last checkpoint.

        As in other savers, a write that is stored already is not replaced.  Only special channels
        like errors, which have negative indices, are.
        """
        place = CheckpointPlace.of(config)
        id_ = config["configurable"]["checkpoint_id"]
        new_entries: dict[str, Any] = {}
        write_once: set[str] = set()
        for number, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, number)
            name = place.name(WRITE, id_, task_id, str(index))
            entry = {"channel": channel, "value": self._values.encode(value)}
            new_entries[name] = entry | ({"path": task_path} if task_path else {})
            if index >= 0:
                write_once.add(name)

        def write(entries: Entries) -> None:
            to_put = {
                name: entry
                for name, entry in new_entries.items()
                if name not in write_once or name not in entries
            }
            entries.put(to_put)

        await (await self._shelf()).commit(write)

    # -- reading ---------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that a config names, else the newest of its thread, else None."""
        place = CheckpointPlace.of(config)
        requested_id = get_checkpoint_id(config)

        def read_checkpoint(entries: Entries) -> _StoredCheckpoint | None:
            id_ = requested_id or entries.get(place.name(NEWEST))
            return self._read(entries, place, id_) if id_ else None

        stored = await (await self._shelf()).commit(read_checkpoint)
        return self._decode(stored) if stored else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, newest first: those of one thread, or without a config all.

        Each is read only when it is its turn, so that a caller can stop early.
        """
        shelf = await self._shelf()
        checkpoints = await shelf.commit(lambda entries: _list_checkpoints(entries, config))
        end = get_checkpoint_id(before) if before else None
        yielded = 0
        for place, id_ in sorted(checkpoints, key=lambda checkpoint: checkpoint[1], reverse=True):
            if limit is not None and yielded >= limit:
                return
            if end and id_ >= end:
                continue
            stored = await shelf.commit(partial(self._read, place=place, id_=id_))
            decoded = self._decode(stored) if stored else None
            if decoded and _fits(decoded.metadata, filter or {}):
                yielded += 1
                yield decoded

    # -- deleting --------------------------------------------------------------------------------

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread; its earlier bytes stay sealed on Arweave."""
        await (await self._shelf()).drop(prefixes=[name_prefix(str(thread_id))])

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs; their earlier bytes stay sealed on Arweave."""
        deleted_runs = set(run_ids)

        def drop(entries: Entries) -> None:
            by_place: dict[CheckpointPlace, set[str]] = {}
            for place, id_ in _list_checkpoints(entries, None):
                stored = entries.get(place.name(CHECKPOINT, id_))
                if self._values.decode(stored["metadata"]).get("run_id") in deleted_runs:
                    by_place.setdefault(place, set()).add(id_)
            for place, ids in by_place.items():
                self._drop(entries, place, ids)

        await (await self._shelf()).commit(drop)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all but the newest checkpoint of each namespace, or with "delete" everything.

        Threads of graphs with delta channels keep all checkpoints: the values of such channels are
        spread over several.  Earlier bytes stay sealed on Arweave.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ConfigError(
                f"{strategy!r} is not a way to prune",
                hint='pass strategy="keep_latest" or "delete"',
            )

        def drop(entries: Entries) -> None:
            for thread in map(str, thread_ids):
                if strategy == "delete":
                    entries.drop(prefixes=[name_prefix(thread)])
                else:
                    self._drop_older(entries, thread)

        await (await self._shelf()).commit(drop)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread to another thread."""
        source = str(source_thread_id)
        target = str(target_thread_id)

        def copy(entries: Entries) -> None:
            copies: dict[str, Any] = {}
            for entry in entries.every(name_prefix(source)):
                _, *after_thread = split_name(entry.name)
                copies[join_name(target, *after_thread)] = entry.value
            entries.put(copies)

        await (await self._shelf()).commit(copy)

    # -- the same methods for synchronous code ---------------------------------------------------

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
            checkpoints = self.alist(config, filter=filter, before=before, limit=limit)
            return [checkpoint async for checkpoint in checkpoints]

        yield from wait(every())

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread; its earlier bytes stay sealed on Arweave."""
        wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs; their earlier bytes stay sealed on Arweave."""
        wait(self.adelete_for_runs(run_ids))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete older checkpoints; see `aprune`."""
        wait(self.aprune(thread_ids, strategy=strategy))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread to another thread."""
        wait(self.acopy_thread(source_thread_id, target_thread_id))

    # -- inside ----------------------------------------------------------------------------------

    def _versions(self, stored: dict[str, Any] | None) -> Mapping[str, Any]:
        """Return the version of each channel at a stored checkpoint."""
        if stored is None:
            return {}
        versions: Mapping[str, Any] = self._values.decode(stored["checkpoint"]["channel_versions"])
        return versions

    def _read(self, entries: Entries, place: CheckpointPlace, id_: str) -> _StoredCheckpoint | None:
        """Read a checkpoint with its channels and pending writes; None if there is none."""
        stored = entries.get(place.name(CHECKPOINT, id_))
        if stored is None:
            return None

        values: dict[str, Any] = {}
        for name, version in self._versions(stored).items():
            get = place.versions(entries, name)
            if get(str(version)):
                values[name] = read(str(version), get)

        ordered_writes: list[tuple[Any, tuple[str, str, Any]]] = []
        for entry in entries.every(place.begin(WRITE, id_)):
            *_, task, index = split_name(entry.name)
            order = writes_sort_key(entry.value.get("path", ""), task, int(index))
            write = (task, entry.value["channel"], entry.value["value"])
            ordered_writes.append((order, write))
        ordered_writes.sort(key=lambda ordered: ordered[0])
        writes = [write for _, write in ordered_writes]
        return _StoredCheckpoint(place=place, id=id_, stored=stored, values=values, writes=writes)

    def _decode(self, read: _StoredCheckpoint) -> CheckpointTuple:
        """Return a stored checkpoint in LangGraph's form."""
        decode = self._values.decode
        checkpoint = decode(read.stored["checkpoint"])
        checkpoint["channel_values"] = {name: decode(value) for name, value in read.values.items()}
        parent = read.stored.get("parent")
        return CheckpointTuple(
            config=read.place.config(read.id),
            checkpoint=checkpoint,
            metadata=decode(read.stored["metadata"]),
            parent_config=read.place.config(parent) if parent else None,
            pending_writes=[(task, channel, decode(value)) for task, channel, value in read.writes],
        )

    def _has_deltas(self, entries: Entries, place: CheckpointPlace, id_: str) -> bool:
        """Whether a checkpoint's channels need values of older checkpoints."""
        stored = entries.get(place.name(CHECKPOINT, id_))
        return bool(self._values.decode(stored["metadata"]).get("counters_since_delta_snapshot"))

    def _drop_older(self, entries: Entries, thread: str) -> None:
        """Drop all but the newest checkpoint of each namespace of a thread."""
        by_place: dict[CheckpointPlace, set[str]] = {}
        for place, id_ in _list_checkpoints(entries, {"configurable": {"thread_id": thread}}):
            by_place.setdefault(place, set()).add(id_)
        for place, ids in by_place.items():
            newest = max(ids)
            if not self._has_deltas(entries, place, newest):
                self._drop(entries, place, ids - {newest})

    def _drop(self, entries: Entries, place: CheckpointPlace, ids: set[str]) -> None:
        """Drop checkpoints, their writes, and the values that no other checkpoint needs."""
        all_ids = {
            id_ for other, id_ in _list_checkpoints(entries, place.config("")) if other == place
        }
        remaining_ids = all_ids - ids

        # A list may be stored in parts under older versions, so those are needed too.
        needed: set[str] = set()
        for id_ in remaining_ids:
            versions = self._versions(entries.get(place.name(CHECKPOINT, id_)))
            for name, version in versions.items():
                links = chain(str(version), place.versions(entries, name))
                needed.update(place.name(VALUE, name, link) for link in links)
        value_names = [entry.name for entry in entries.every(place.begin(VALUE))]

        names = [place.name(CHECKPOINT, id_) for id_ in ids]
        names += [name for name in value_names if name not in needed]
        if remaining_ids:
            entries.put({place.name(NEWEST): max(remaining_ids)})
        else:
            names.append(place.name(NEWEST))
        entries.drop(names, [place.begin(WRITE, id_) for id_ in ids])


def _list_checkpoints(
    entries: Entries, config: RunnableConfig | None
) -> list[tuple[CheckpointPlace, str]]:
    """Return the places and ids of the checkpoints that a config selects, without one of all.

    A config may name a thread, a namespace in it, and a checkpoint.
    """
    configurable = config["configurable"] if config else {}
    thread = configurable.get("thread_id")
    namespace = configurable.get("checkpoint_ns")
    prefix = "" if thread is None else name_prefix(str(thread))
    if thread is not None and namespace is not None:
        prefix = name_prefix(str(thread), namespace, CHECKPOINT)

    checkpoints: list[tuple[CheckpointPlace, str]] = []
    for entry in entries.every(prefix):
        entry_thread, entry_namespace, kind, *rest = split_name(entry.name)
        if kind != CHECKPOINT or (namespace is not None and entry_namespace != namespace):
            continue
        id_ = rest[0]
        if configurable.get("checkpoint_id") in (None, "", id_):
            checkpoints.append((CheckpointPlace(entry_thread, entry_namespace), id_))
    return checkpoints


def _fits(metadata: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    return all(metadata.get(name) == value for name, value in asked.items())
