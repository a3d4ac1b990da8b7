"""Slips in calls of the public functions: an error of ours, whose hint says what to write."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import agentkit as ak
from agentkit.keys import keystore
from agentkit.runtime.failures import with_place

GRAPH = ak.JobGraph("slips")
ANSWER = GRAPH.infer("answer", model="smollm2-135m", prompt="hi", max_tokens=4)


async def first_tick(period: Any) -> None:
    async for _ in ak.every(period):
        return


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: ak.plan(GRAPH, budgt="1 USDC"), "write one of: budget, deadline"),
        (lambda: ak.run(GRAPH, budgt="1 USDC"), "write one of: approve, trust_code, budget"),
        (lambda: ak.resume("r1", functions=[]), "write one of: graph, plan, budget"),
        (lambda: ak.JobGraph("g").include("graph.toml"), "read one with ak.JobGraph.load"),
        (
            lambda: ak.JobGraph("g").infer("a", model="m", prompt="p", max_token=4),
            "write one of: model, prompt",
        ),
        (
            lambda: ak.JobGraph("g").infer("a", model="m", prompt="p", inputs=["rows"]),
            "write inputs=",
        ),
        (lambda: ak.JobGraph("g").data("a", sql="select 1", inputs=["rows"]), "write inputs="),
    ],
)
def test_a_slip_in_a_call_says_what_to_write(call: Callable[[], object], hint: str) -> None:
    with pytest.raises(ak.AgentKitError) as refused:
        call()
    assert refused.value.hint.startswith(hint)


@pytest.mark.parametrize("period", [5, "5m", None])
async def test_a_period_is_a_timedelta(period: Any) -> None:
    with pytest.raises(ak.ConfigError) as refused:
        await first_tick(period)
    assert "timedelta" in refused.value.hint
    await first_tick(timedelta(seconds=1))


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


def test_an_error_of_a_function_names_no_line_of_ours() -> None:
    def slip() -> None:
        ak.JobGraph("g").ref("none")

    with pytest.raises(ak.AgentKitError) as refused:
        slip()
    line = slip.__code__.co_firstlineno + 1
    assert with_place(refused.value).endswith(f"(test_slips.py:{line})")


async def test_a_function_that_cannot_be_called_so_names_no_line(own_folder: Path) -> None:
    def two(answer: ak.Text, more: object) -> ak.Json:
        raise AssertionError

    graph = ak.JobGraph("two")
    graph.local("length", two, graph.infer("a", model="smollm2-135m", prompt="hi", max_tokens=4))
    async with ak.Agent.from_config() as agent:
        with pytest.raises(ak.RunPaused) as paused:
            await agent.run(graph, budget="0.01 USDC")
    assert str(paused.value).endswith("argument: 'more'")


def test_a_keystore_without_a_passphrase_asks_for_it(tmp_path: Path) -> None:
    keystore.create(tmp_path / "wallet.json", "a passphrase")
    with pytest.raises(ak.ConfigError, match="no passphrase is set") as refused:
        keystore.unlock(tmp_path / "wallet.json", "", real=True)
    assert refused.value.hint == "set AGENTKIT_PASSPHRASE"


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
