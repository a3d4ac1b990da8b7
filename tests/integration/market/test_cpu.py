"""Processor time as a unit: declared, priced, measured, charged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from agentkit.agent import Agent
from agentkit.graph.builder import JobGraph
from agentkit.market.task import CPU_MS


async def test_a_query_is_charged_for_what_was_measured(
    open_agent: Callable[[], AbstractAsyncContextManager[Agent]], tmp_path: Path
) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n' * 10)
    graph = JobGraph("query")
    rows = graph.data("rows", source=tmp_path / "t.jsonl")
    graph.data("total", sql="select sum(a) as s from rows", inputs={"rows": rows})
    async with open_agent() as agent:
        result = await agent.run(graph, budget="1.00 USDC")
    (receipt,) = result.receipts
    assert 0 < receipt.usage[CPU_MS] < 60_000
    most = receipt.usage["byte"] / 2 + receipt.usage[CPU_MS] / 100
    assert 0 < receipt.amount.units <= -(-most // 1)  # the cheaper node takes less
