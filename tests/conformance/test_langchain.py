"""LangChain's own suites for stores over a journal on disk; for chat history there is none."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from langchain_core.stores import BaseStore
from langchain_tests.integration_tests import BaseStoreAsyncTests, BaseStoreSyncTests
from support.memory_fixtures import mind

from agentkit.tools import AgentKitByteStore


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
