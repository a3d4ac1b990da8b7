"""LangChain's key-value store and chat history in an agent's memory.

Both are durable when they return, sealed and restored with the wallet's stream, and shared by the
processes of a wallet.  What is deleted is gone here and after a restore; the bytes that were sealed
before stay on Arweave, which cannot forget.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langchain_core.stores import ByteStore

from agentkit.errors import WrongInput
from agentkit.memory.knowledge.kv_store import Entries, Shelf, beginning, joined
from agentkit.tools.agent_loop import Remembering, memory_of, wait
from agentkit.tools.serialization import Values


class AgentKitByteStore(ByteStore):
    """Bytes by name, in `namespace`; up to 700 KiB each.

    Raises WrongInput for what is larger.  Without `agent` the default agent's memory is used.
    """

    def __init__(self, namespace: str = "default", *, agent: Remembering | None = None) -> None:
        self.namespace, self.agent = namespace, agent

    async def _shelf(self) -> Shelf:
        return (await memory_of(self.agent)).shelf(f"bytes:{self.namespace}")

    async def amget(self, keys: Sequence[str]) -> list[bytes | None]:
        found = await (await self._shelf()).commit(lambda known: [known.get(key) for key in keys])
        return [None if value is None else _bytes(value) for value in found]

    async def amset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        await (await self._shelf()).put({key: _plain(data) for key, data in key_value_pairs})

    async def amdelete(self, keys: Sequence[str]) -> None:
        """Drop keys: a tombstone, what was sealed before stays sealed on Arweave."""
        await (await self._shelf()).drop(*keys)

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        for name in await (await self._shelf()).names(prefix or ""):
            yield name

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        return wait(self.amget(keys))

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        wait(self.amset(key_value_pairs))

    def mdelete(self, keys: Sequence[str]) -> None:
        """Drop keys: a tombstone, what was sealed before stays sealed on Arweave."""
        wait(self.amdelete(keys))

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        async def names() -> list[str]:
            return await (await self._shelf()).names(prefix or "")

        yield from wait(names())


def _plain(data: bytes) -> dict[str, str]:
    """Return bytes as JSON: as text where they are text, which compresses better."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _bytes(value: dict[str, str]) -> bytes:
    return value["text"].encode() if "text" in value else base64.b64decode(value["base64"])


class AgentKitChatHistory(BaseChatMessageHistory):
    """The messages of one conversation; `newest` bounds how many of them are kept.

    Without `agent` the default agent's memory is used.
    """

    def __init__(
        self, session: str, *, newest: int | None = None, agent: Remembering | None = None
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
        begin = beginning(self.session, "message")
        found = await (await self._shelf()).commit(lambda entries: entries.every(begin))
        return [self._values.decode(entry.value) for entry in found]

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        plain = [self._values.encode(message) for message in messages]
        await (await self._shelf()).commit(lambda entries: self._add(entries, plain))

    async def aclear(self) -> None:
        """Drop the conversation: a tombstone, what was sealed stays sealed on Arweave."""
        await (await self._shelf()).drop(prefixes=[beginning(self.session)])

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # a property, as asked for
        """The messages, oldest first."""
        return wait(self.aget_messages())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        wait(self.aadd_messages(messages))

    def clear(self) -> None:
        """Drop the conversation: a tombstone, what was sealed stays sealed on Arweave."""
        wait(self.aclear())

    def _add(self, entries: Entries, plain: Sequence[Any]) -> None:
        """Append messages, and drop the oldest beyond the number that is kept."""
        counter = joined(self.session, "count")
        count = entries.get(counter) or 0
        new = {self._name(number): value for number, value in enumerate(plain, count)}
        if not new:
            return
        entries.put({counter: count + len(plain), **new})
        if self.newest is not None:
            begin = beginning(self.session, "message")
            names = [entry.name for entry in entries.every(begin)]
            entries.drop(names[: max(0, len(names) - self.newest)])

    def _name(self, number: int) -> str:
        return joined(self.session, "message", f"{number:09d}")
