"""What can never succeed fails at once and says why; what may, pauses; rows may be left out."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

import agentkit as ak
from agentkit.errors import (
    RunFailed,
)
from agentkit.graph.builder import JobGraph

# -- with real nodes -----------------------------------------------------------------------------


class Long(BaseModel):
    title: str
    story: str


async def test_an_answer_cut_inside_its_json_fails_and_says_what_to_raise(open_agent: Any) -> None:
    graph = JobGraph("cut")
    graph.infer("tell", model="smollm2-135m", prompt="Tell a story.", output=Long, max_tokens=5)
    async with open_agent() as agent:
        with pytest.raises(RunFailed, match="max_tokens=5 cut the answer before its JSON ended"):
            await agent.run(graph)
        assert not (await agent.balances()).held


async def test_a_query_that_cannot_bind_fails_where_nobody_knew_its_tables(open_agent: Any) -> None:
    graph = JobGraph("query")
    made = graph.local("made", table)
    graph.data("q", sql="select missing from made", inputs={"made": made})
    async with open_agent() as agent:
        with pytest.raises(RunFailed, match=r'q: every provider .* "missing" not found'):
            await agent.run(graph)


def table() -> ak.Dataset:
    return ak.Dataset.dump([{"there": 1}])
