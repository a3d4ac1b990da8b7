"""LangChain's own suites for stores over a journal on disk, and for what a chat model is made of.

For chat history there is none.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.stores import BaseStore
from langchain_tests.integration_tests import BaseStoreAsyncTests, BaseStoreSyncTests
from langchain_tests.unit_tests import ChatModelUnitTests
from support.memory_fixtures import mind

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
