"""Code that a run may load: what was agreed to when it began, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.agreed_code import NAME, digest, file_in, forget, graph_of

import agentkit as ak
from agentkit.errors import UntrustedCode
from agentkit.graph.builder import JobGraph
from agentkit.graph.callables import load_file


async def test_consent_may_be_given_to_an_agent(open_agent: Any, tmp_path: Path) -> None:
    path = file_in(tmp_path)
    graph = JobGraph("g")
    asked = graph.infer("ask", model="smollm2-135m", prompt="hello", max_tokens=4)
    graph.local("after", load_file(path, NAME).shout, asked)
    graph.save(tmp_path / "graph.toml")
    forget()
    async with open_agent() as agent:
        read = ak.JobGraph.load(tmp_path / "graph.toml")
        with pytest.raises(UntrustedCode):
            await agent.run(read)
        assert await agent.runs() == []
        result = await agent.run(read, trust_code=[digest(path)])
        assert result["after"]


async def test_a_model_that_writes_a_graph_runs_no_code(open_agent: Any, tmp_path: Path) -> None:
    from agentkit.tools import toolkit

    path = file_in(tmp_path)
    spec = graph_of(path).freeze().by_name["after"].callables()["fn"]
    node = {"kind": "local", "name": "n", "fn": spec.model_dump()}
    forget()
    async with open_agent() as agent:
        planning, running = toolkit(agent)
        graph = {"name": "g", "nodes": [node]}
        told = await planning.ainvoke({"graph": graph, "budget": "1 USDC"})
        refused = await running.ainvoke({"plan_id": told.split()[1]})
        assert "code that you have not agreed to" in str(refused)
        assert NAME not in sys.modules
