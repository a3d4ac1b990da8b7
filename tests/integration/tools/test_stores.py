"""A conversation and bytes by name in an agent's memory."""

from pathlib import Path

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from support.memory_fixtures import elsewhere, mind

from agentkit.tools import AgentKitByteStore, AgentKitChatHistory


async def test_a_conversation_is_kept_by_session_and_comes_back_from_the_key(
    tmp_path: Path,
) -> None:
    said: list[BaseMessage] = [
        SystemMessage("be brief"),
        HumanMessage("hello", name="ann"),
        AIMessage("hi", response_metadata={"agentkit": {"paid": "0.01 USDC"}}),
    ]
    async with mind(tmp_path / "home") as one:
        await AgentKitChatHistory("ann", agent=one).aadd_messages(said[:2])
        await AgentKitChatHistory("ann", agent=one).aadd_messages(said[2:])
        await AgentKitChatHistory("an", agent=one).aadd_messages([HumanMessage("not hers")])
        await AgentKitByteStore("files", agent=one).amset([("a", b"\xff"), ("b", b"text")])
        await AgentKitByteStore("files", agent=one).amdelete(["b"])
        async with elsewhere(one, tmp_path) as other:
            assert await AgentKitChatHistory("ann", agent=other).aget_messages() == said
            store = AgentKitByteStore("files", agent=other)
            assert await store.amget(["a", "b"]) == [b"\xff", None]
            assert await AgentKitByteStore("other", agent=other).amget(["a"]) == [None]
