"""Where the entries of a checkpoint lie in the key-value store."""

from __future__ import annotations

from typing import NamedTuple

from langchain_core.runnables import RunnableConfig

from agentkit.memory.knowledge.kv_store import Entries, join_name, name_prefix
from agentkit.tools.channels import Get

CHECKPOINT = "checkpoint"
VALUE = "value"
WRITE = "write"
NEWEST = "newest"
"""The kinds of entries; an entry's name is its thread, its namespace, one of these, and an id."""


class CheckpointPlace(NamedTuple):
    """A thread and a namespace in it, which have checkpoints together."""

    thread: str
    namespace: str

    @classmethod
    def of(cls, config: RunnableConfig) -> CheckpointPlace:
        """Return the place that a config of LangGraph names."""
        configurable = config["configurable"]
        return cls(str(configurable["thread_id"]), configurable.get("checkpoint_ns", ""))

    def name(self, *parts: str) -> str:
        """Return the name of an entry at this place."""
        return join_name(*self, *parts)

    def begin(self, *parts: str) -> str:
        """Return the prefix of the names of entries at this place."""
        return name_prefix(*self, *parts)

    def versions(self, entries: Entries, channel: str) -> Get:
        """Return a function from a version of a channel to its stored entry."""
        return lambda version: entries.get(self.name(VALUE, channel, version))

    def config(self, checkpoint: str) -> RunnableConfig:
        """Return the config of LangGraph that names a checkpoint at this place."""
        return {
            "configurable": {
                "thread_id": self.thread,
                "checkpoint_ns": self.namespace,
                "checkpoint_id": checkpoint,
            }
        }
