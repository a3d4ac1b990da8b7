"""Slips in calls of the public functions: an error of ours, whose hint says what to write."""

import subprocess
import sys
from pathlib import Path

import pytest

import agentkit as ak

GRAPH = ak.JobGraph("slips")
ANSWER = GRAPH.infer("answer", model="smollm2-135m", prompt="hi", max_tokens=4)


async def test_an_agent_refuses_what_it_would_have_to_ignore(own_folder: Path) -> None:
    async with ak.Agent.from_config() as agent:
        plan = await agent.plan(GRAPH, budget="0.01 USDC")
        for call, said in [
            (lambda: agent.run(plan, budget="0.001 USDC"), "budget= cannot change"),
            (lambda: agent.run(plan, approve=True), "does not say who is asked"),
            (lambda: agent.plan(GRAPH, risk=3), "is not a share between 0 and 1"),
            (lambda: agent.status(5), "is not the id of a run"),
            (lambda: agent.resume(None), "is not the id of a run"),
            (lambda: agent.cancel(5), "is not the id of a run"),
        ]:
            with pytest.raises(ak.ConfigError, match=said):
                await call()  # type: ignore[operator]
        assert await agent.runs() == []


async def test_a_function_that_cannot_be_called_so_names_no_line(own_folder: Path) -> None:
    def two(answer: ak.Text, more: object) -> ak.Json:
        raise AssertionError

    graph = ak.JobGraph("two")
    graph.local("length", two, graph.infer("a", model="smollm2-135m", prompt="hi", max_tokens=4))
    async with ak.Agent.from_config() as agent:
        with pytest.raises(ak.RunPaused) as paused:
            await agent.run(graph, budget="0.01 USDC")
    assert str(paused.value).endswith("argument: 'more'")


def test_ctrl_c_while_modules_are_read_ends_without_a_traceback() -> None:
    code = """
import sys

class Interrupted:
    def find_spec(self, name, *_):
        if name == "agentkit.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
import deai_agentkit
deai_agentkit.main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "")
