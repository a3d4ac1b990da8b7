"""Slips in calls of the public functions: an error of ours, whose hint says what to write."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.keystore_files import write_keystore

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


def test_an_error_of_a_function_names_no_line_of_ours() -> None:
    def slip() -> None:
        ak.JobGraph("g").ref("none")

    with pytest.raises(ak.AgentKitError) as refused:
        slip()
    line = slip.__code__.co_firstlineno + 1
    assert with_place(refused.value).endswith(f"(test_usage_errors.py:{line})")


def test_a_keystore_without_a_passphrase_asks_for_it(tmp_path: Path) -> None:
    write_keystore(tmp_path / "wallet.json")
    with pytest.raises(ak.ConfigError, match="no passphrase is set") as refused:
        keystore.unlock(tmp_path / "wallet.json", "", real=True)
    assert refused.value.hint == "set AGENTKIT_PASSPHRASE"
