"""The agent before it is open."""

from collections.abc import Callable
from typing import Any

import pytest

import agentkit as ak


def plan(agent: ak.Agent) -> Any:
    graph = ak.JobGraph("g")
    graph.infer("hello", model="m", prompt="hello")
    return agent.plan(graph)


@pytest.mark.parametrize("use", [plan, ak.Agent.runs, ak.Agent.receipts, ak.Agent.balances])
async def test_an_agent_that_is_not_open_says_how_to_open_it(
    use: Callable[[ak.Agent], Any],
) -> None:
    with pytest.raises(ak.ConfigError, match="the agent is not open yet") as refused:
        await use(ak.Agent.from_config())
    assert "async with" in refused.value.hint
