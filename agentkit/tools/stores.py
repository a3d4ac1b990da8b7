"""LangChain's key-value store and chat history in an agent's memory.

A write is durable when its call returns.  Entries are sealed and restored with the wallet, and all
processes of a wallet share them.  A deleted entry is gone on this machine and after a restore, but
bytes that were sealed before stay on Arweave, where nothing can be deleted.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langchain_core.stores import ByteStore

from agentkit.errors import WrongInput
from agentkit.memory.knowledge.kv_store import Entries, Shelf, join_name, name_prefix
from agentkit.tools.agent_loop import HasMemory, memory_of, wait
from agentkit.tools.serialization import Values


class AgentKitByteStore(ByteStore):
    """Stores bytes by key in `namespace`, up to 700 KiB for each key.

    Raises WrongInput for larger values.  Without `agent` the default agent's memory is used.
    """

    def __init__(self, namespace: str = "default", *, agent: HasMemory | None = None) -> None:
        self.namespace = namespace
        self.agent = agent

    async def _shelf(self) -> Shelf:
        return (await memory_of(self.agent)).shelf(f"bytes:{self.namespace}")

    async def amget(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes of each key, None for a key without a value."""
        shelf = await self._shelf()
        values = await shelf.commit(lambda entries: [entries.get(key) for key in keys])
        return [None if value is None else _to_bytes(value) for value in values]

    async def amset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Store the bytes of each key, all of them in one transaction."""
        shelf = await self._shelf()
        await shelf.put({key: _to_json(data) for key, data in key_value_pairs})

    async def amdelete(self, keys: Sequence[str]) -> None:
        """Delete keys; their earlier bytes stay sealed on Arweave."""
        await (await self._shelf()).drop(*keys)

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        for name in await (await self._shelf()).names(prefix or ""):
            yield name

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        return wait(self.amget(keys))

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        wait(self.amset(key_value_pairs))

    def mdelete(self, keys: Sequence[str]) -> None:
        """Delete keys; their earlier bytes stay sealed on Arweave."""
        wait(self.amdelete(keys))

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        async def names() -> list[str]:
            return await (await self._shelf()).names(prefix or "")

        yield from wait(names())


def _to_json(data: bytes) -> dict[str, str]:
    """Return bytes as JSON: as text if they are UTF-8, which compresses better, else as base64."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _to_bytes(value: dict[str, str]) -> bytes:
    return value["text"].encode() if "text" in value else base64.b64decode(value["base64"])


class AgentKitChatHistory(BaseChatMessageHistory):
    """Stores the messages of one conversation, only the last `newest` of them if that is given.

    Without `agent` the default agent's memory is used.
    """

    def __init__(
        self, session: str, *, newest: int | None = None, agent: HasMemory | None = None
    ) -> None:
        if newest is not None and newest < 1:
            raise WrongInput(f"newest={newest} keeps nothing", hint="pass newest=20, or clear()")
        self.session = session
        self.newest = newest
        self.agent = agent
        self._values = Values()

    async def _shelf(self) -> Shelf:
        return (await memory_of(self.agent)).shelf("chat")

    async def aget_messages(self) -> list[BaseMessage]:
        """Return the messages, oldest first."""
        prefix = name_prefix(self.session, "message")
        shelf = await self._shelf()
        messages = await shelf.commit(lambda entries: entries.every(prefix))
        return [self._values.decode(entry.value) for entry in messages]

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append messages in one transaction."""
        encoded = [self._values.encode(message) for message in messages]
        shelf = await self._shelf()
        await shelf.commit(lambda entries: self._add(entries, encoded))

    async def aclear(self) -> None:
        """Delete the conversation; its earlier bytes stay sealed on Arweave."""
        await (await self._shelf()).drop(prefixes=[name_prefix(self.session)])

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # a property, as asked for
        """The messages, oldest first."""
        return wait(self.aget_messages())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        wait(self.aadd_messages(messages))

    def clear(self) -> None:
        """Delete the conversation; its earlier bytes stay sealed on Arweave."""
        wait(self.aclear())

    def _add(self, entries: Entries, encoded: Sequence[Any]) -> None:
        """Append encoded messages, and drop the oldest ones beyond `newest`.

        Numbers of dropped messages are not used again, so the order of names stays that of time.
        """
        counter = join_name(self.session, "count")
        count = entries.get(counter) or 0
        new_entries = {self._name(number): value for number, value in enumerate(encoded, count)}
        if not new_entries:
            return
        entries.put({counter: count + len(encoded), **new_entries})
        if self.newest is not None:
            prefix = name_prefix(self.session, "message")
            names = [entry.name for entry in entries.every(prefix)]
            entries.drop(names[: max(0, len(names) - self.newest)])

    def _name(self, number: int) -> str:
        return join_name(self.session, "message", f"{number:09d}")
