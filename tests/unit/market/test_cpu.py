"""Processor time as a unit: declared, priced, measured, charged."""

from __future__ import annotations

import pytest

from agentkit.errors import BadAmount
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
