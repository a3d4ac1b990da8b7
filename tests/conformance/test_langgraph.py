"""LangGraph's own conformance suite over a journal on disk, async and blocking."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from support.memory_fixtures import mind

from agentkit.tools import AgentKitSaver


class Blocking(BaseCheckpointSaver[str]):
    """A saver's blocking methods under the names that the suite calls."""

    def __init__(self, saver: AgentKitSaver) -> None:
        super().__init__()
        self.saver = saver

    async def aget_tuple(self, config: Any) -> CheckpointTuple | None:
        return await asyncio.to_thread(self.saver.get_tuple, config)

    async def alist(self, config: Any, **asked: Any) -> AsyncIterator[CheckpointTuple]:
        for found in await asyncio.to_thread(lambda: list(self.saver.list(config, **asked))):
            yield found

    async def aput(self, *args: Any) -> Any:
        return await asyncio.to_thread(self.saver.put, *args)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self.saver.put_writes, *args, **kwargs)

    async def adelete_thread(self, thread_id: str) -> None:
        await asyncio.to_thread(self.saver.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Any) -> None:
        await asyncio.to_thread(self.saver.delete_for_runs, run_ids)

    async def acopy_thread(self, source: str, target: str) -> None:
        await asyncio.to_thread(self.saver.copy_thread, source, target)

    async def aprune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
        await asyncio.to_thread(lambda: self.saver.prune(thread_ids, strategy=strategy))


@pytest.mark.parametrize("way", [lambda saver: saver, Blocking], ids=["async", "blocking"])
async def test_the_suite_passes_in_every_capability(tmp_path: Path, way: Any) -> None:
    homes = (tmp_path / str(number) for number in itertools.count())

    @checkpointer_test(name="AgentKitSaver")
    async def fresh() -> AsyncIterator[BaseCheckpointSaver[str]]:
        async with mind(next(homes)) as one:
            yield way(AgentKitSaver(agent=one))
            await one.journal.check()

    report = await validate(fresh)
    told = {name: (r.tests_failed, r.failures) for name, r in report.results.items()}
    assert told == {capability.value: (0, []) for capability in ALL_CAPABILITIES}
    assert report.passed_all()
    assert sum(r.tests_passed for r in report.results.values()) >= 75
