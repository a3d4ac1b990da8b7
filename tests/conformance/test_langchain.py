"""LangChain's own suites: for stores over a journal on disk, and for the chat model.

For chat history there is none.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.stores import BaseStore
from langchain_tests.integration_tests import (
    BaseStoreAsyncTests,
    BaseStoreSyncTests,
    ChatModelIntegrationTests,
)
from langchain_tests.unit_tests import ChatModelUnitTests
from support.memory_fixtures import mind

from agentkit.agent import Agent
from agentkit.embedded import discovery
from agentkit.planner import policy
from agentkit.tools import AgentKitByteStore, ChatAgentKit


class Ours:
    """The store that both suites are given, and values of three sorts."""

    @pytest.fixture
    async def kv_store(self, tmp_path: Path) -> AsyncIterator[BaseStore[str, bytes]]:
        async with mind(tmp_path) as one:
            yield AgentKitByteStore(agent=one)

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"text", b"\x00\xff not text", b""


class TestSync(Ours, BaseStoreSyncTests[bytes]):
    """The blocking half."""


class TestAsync(Ours, BaseStoreAsyncTests[bytes]):
    """The other half."""


class TestChat(ChatModelUnitTests):
    """What needs no provider.

    Skipped: to be made from environment variables, which are for the agent's settings, and to be
    written as LangChain's JSON, which could not hold an agent.
    """

    @property
    def chat_model_class(self) -> type[ChatAgentKit]:
        return ChatAgentKit

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "smollm2-135m"}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        """The options of every model but `api_key`: keys of providers are settings of the agent."""
        given = super().standard_chat_model_params
        return {name: value for name, value in given.items() if name != "api_key"}

    @property
    def model_override_value(self) -> str:
        return "smollm2-360m"


@pytest.fixture(scope="module")
def running_agent(
    network: discovery.NetworkFile,
    network_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Agent]:
    """An agent on an event loop of its own, as blocking calls need it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    home = tmp_path_factory.mktemp("langchain")
    opening = Agent.from_config(home=home, network_home=network_folder)
    agent = asyncio.run_coroutine_threadsafe(opening.__aenter__(), loop).result()
    yield agent
    asyncio.run_coroutine_threadsafe(agent.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def vcr_config() -> dict[str, Any]:
    """Have the suite's recorder leave this machine's own traffic alone.

    While its one recorded test is set up, to be skipped, it would catch what the agent seals.
    """
    return {"ignore_localhost": True}


class TestChatOfOurNode(ChatModelIntegrationTests):
    """Whole answers, tools and structured output, each bought from our own node.

    Skipped is what the model cannot read: pictures, PDF files, audio, and Anthropic's blocks.
    """

    @pytest.fixture(autouse=True)
    def _with_agent(self, running_agent: Agent) -> None:
        self.agent = running_agent

    @property
    def chat_model_class(self) -> type[ChatAgentKit]:
        return ChatAgentKit

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "agent": self.agent,
            "policy": policy.allow("native"),
        }

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"max_tokens": 160, "temperature": 0.0}

    @property
    def model_override_value(self) -> str:
        return "smollm2-135m"

    @property
    def supports_json_mode(self) -> bool:
        return True
