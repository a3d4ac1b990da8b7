"""A conversation and bytes by name in an agent's memory."""

from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from support.memory_fixtures import mind

from agentkit import sync
from agentkit.errors import ConfigError, WrongInput
from agentkit.tools import AgentKitByteStore, AgentKitChatHistory


def texts(messages: list[BaseMessage]) -> list[str]:
    return [str(message.text) for message in messages]


def test_a_history_does_what_the_base_class_says_from_code_that_blocks(tmp_path: Path) -> None:
    import asyncio

    async def on_a_running_loop() -> None:
        async with mind(tmp_path) as one:
            history = AgentKitChatHistory("s", agent=one)
            assert history.messages == []
            history.add_user_message("one")
            history.add_ai_message("two")
            history.add_messages([])
            assert str(history) == "Human: one\nAI: two"
            other = AgentKitChatHistory("other", agent=one)
            other.add_user_message("kept")
            history.clear()
            assert history.messages == []
            history.add_message(HumanMessage("again"))
            assert texts(history.messages) == ["again"]
            assert texts(other.messages) == ["kept"]

    asyncio.run(on_a_running_loop())


async def test_only_the_newest_messages_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        history = AgentKitChatHistory("s", newest=3, agent=one)
        for number in range(12):
            await history.aadd_messages([HumanMessage(str(number)), AIMessage("?")])
        assert texts(await history.aget_messages()) == ["?", "11", "?"]
        assert len(await one.memory.shelf("chat").names()) == 4
        await one.journal.check()


def test_a_history_of_nothing_and_a_wait_for_itself_are_refused() -> None:
    with pytest.raises(WrongInput, match="keeps nothing"):
        AgentKitChatHistory("s", newest=0)

    async def blocking() -> None:
        AgentKitByteStore().mget(["a"])

    with pytest.raises(ConfigError, match="wait for itself"):
        sync.block_on(blocking())


async def test_bytes_that_are_too_many_are_refused(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        store = AgentKitByteStore(agent=one)
        await store.amset([("most", b"\xff" * 700 * 1024)])
        with pytest.raises(WrongInput, match="more than 1048576") as raised:
            await store.amset([("a", b"fine"), ("too-large", b"\xff" * 800 * 1024)])
        assert "artifact" in raised.value.hint
        assert [key async for key in store.ayield_keys()] == ["most"]
