"""Processor time as a unit: declared, priced, measured, charged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agentkit.agent import Agent
from agentkit.errors import BadAmount
from agentkit.graph.builder import JobGraph
from agentkit.kinds.infer import Infer
from agentkit.kinds.sql import Sql
from agentkit.kinds.train import Train
from agentkit.market.offer import charge, priced
from agentkit.market.task import CPU_MS, Load
from agentkit.money import Asset, Rate
from agentkit.serve.node import PRICES

USDC = Asset("USDC", 6)
RATES = {unit: Rate.parse(text).bind(USDC) for unit, text in PRICES["data"].items()}


def test_an_hour_of_a_core_costs_what_the_price_list_says() -> None:
    assert charge(USDC, RATES, {"byte": 0, CPU_MS: 3_600_000}).units == 36_000
    price, at_most = priced(USDC, RATES, Sql().with_cpu(Load(expected={}, most={})))
    assert price.units == 1
    assert at_most.units == 600


def test_who_names_no_rate_for_it_does_not_charge_for_it() -> None:
    bytes_only = {"byte": RATES["byte"]}
    assert charge(USDC, bytes_only, {"byte": 100, CPU_MS: 10**9}).units == 50
    with pytest.raises(BadAmount, match="row"):
        charge(USDC, bytes_only, {"row": 1})


def test_questions_cost_their_tokens_and_nothing_further() -> None:
    load = Load(expected={"input": 5, "output": 5}, most={"input": 9, "output": 9})
    assert Infer().with_cpu(load) == load


def test_what_is_expected_is_within_what_it_may_be() -> None:
    for kind in (Train(), Sql()):
        load = kind.with_cpu(Load(expected={"row": 10**7}, most={"row": 1}))
        assert load.expected[CPU_MS] <= load.most[CPU_MS]


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
