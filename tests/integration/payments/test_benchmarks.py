"""The benchmarks of paying, scaled down: they run, and their sums hold (they check them)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.timing import limit

PARTS = Path(__file__).parents[3] / "benchmarks/paying"

pytestmark = pytest.mark.anvil


def figures(part: str, *arguments: str) -> dict[str, Any]:
    """Run a part in a process of its own, as people do."""
    done = subprocess.run(
        [sys.executable, str(PARTS / f"{part}.py"), "--json", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=limit(280),
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_channel_costs_three_transactions_whatever_is_paid_over_it() -> None:
    found = figures("channel_gas", "--counts", "1", "10")
    assert found["coins_held"] == {"payer": 0, "seller": 0}
    one, ten = found["channel_gas_per_task"]["1"], 10 * found["channel_gas_per_task"]["10"]
    assert 200_000 < ten < 250_000
    assert abs(one - ten) < 2_000


def test_what_is_paid_is_charged_once_and_takes_longer_than_what_is_free() -> None:
    found = figures("latency", "--requests", "20")["latency"]
    assert found["added_ms"]["p50"] > 0
    assert found["paid_ms"]["p50"] > found["free_ms"]["p50"] > 0
    assert found["commit_ms"]["p50"] > 0


def test_64_lanes_on_one_channel_are_admitted_and_paid_to_the_unit() -> None:
    found = figures("throughput", "--rounds", "1", "--scale", "0.05")["paid_tasks_vs_x402"]
    assert found["channel_at_once"] == 64
    assert found["ratio"] > 1


def test_paying_for_each_task_costs_more_than_a_channel_with_a_thousand() -> None:
    found = figures("gas")
    assert found["gas_of_one"]["x402"] > found["gas_of_one"]["transfer"] > 250


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nobody_is_charged_twice_at_our_node_whoever_is_killed() -> None:
    found = figures("crashes", "--calls", "80", "--at-once", "8", "--kills", "5")["crashes"]
    node = found["our_node"]
    assert sum(node["kills"].values()) > 0
    assert node["unclaimable_units"] == 0
    for name, calls in {"python": 8, "javascript": 8, "ours": 64}.items():
        row = node[name]
        assert (row["calls"], row["channels"]) == (calls, 1), name
        assert (row["charged_twice"], row["delivered_unpaid"]) == (0, 0), name
    assert node["ours"]["bought"] == 64
    assert node["ours"]["promised_beyond_receipts_units"] == 0
    server = found["stock_server"]
    assert server["charged_not_received"] == server["lost"] > 0
    assert server["bought_again_unasked"] == 0
    control = found["stock_client_on_files"]
    assert control["charged_twice"] > 0, "kills do harm where nothing is done against them"
