"""The demo, as a newcomer runs it: every figure consistent, nothing left behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.timing import limit

from agentkit.money import Money

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, float]:
    """Run it once, in a folder whose settings would lead it astray; (figures, log, seconds)."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "agentkit.toml").write_text("network = 'base'\n[allowance]\nper_run = '0.01 USDC'\n")
    models = os.environ.get("AGENTKIT_MODELS", str(Path("~/.cache/agentkit/models").expanduser()))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "agentkit", "demo", "--json"],
        capture_output=True,
        check=False,
        text=True,
        cwd=folder,
        timeout=limit(115),
        env={**os.environ, "TMPDIR": str(folder), "AGENTKIT_MODELS": models},
    )
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob("agentkit-demo-*"))
    left = [p.info for p in psutil.process_iter(["cmdline"]) if str(folder) in str(p.info)]
    assert left == []
    return json.loads(done.stdout.splitlines()[-1]), done.stderr, time.monotonic() - began


def units(figures: dict[str, Any], name: str) -> int:
    return Money.parse(figures[name]).units


def test_the_sums_hold(demo: tuple[dict[str, Any], str, float]) -> None:
    figures, _, _ = demo
    by_node = sum(Money.parse(node["paid"]).units for node in figures["nodes"])
    assert by_node == units(figures, "paid") > 0
    settled = units(figures, "settled_on_chain")
    assert settled == units(figures, "wallet_before") - units(figures, "wallet_after")
    over = units(figures, "credit_left") + units(figures, "uncertain_debited")
    assert settled == units(figures, "paid") + over
    assert units(figures, "billed_elsewhere") > 0
    assert Money.parse(figures["gas"]).units > 0


def test_every_kind_of_node_ran_on_all_three_providers(
    demo: tuple[dict[str, Any], str, float],
) -> None:
    nodes = demo[0]["nodes"]
    assert {node["kind"] for node in nodes} == {"data", "train", "infer", "local"}
    assert {node["provider"] for node in nodes} == {"this machine", "native", "gaia", "hyperbolic"}
    assert all(len(node["digest"]) == 64 for node in nodes)
    assert len({node["name"] for node in nodes}) == len(nodes)


def test_both_kills_hit_work_in_flight(demo: tuple[dict[str, Any], str, float]) -> None:
    figures, log, _ = demo
    assert "killed while native/" in log
    assert "killed again in the middle of the chat" in log
    crash = figures["crash"]
    assert (crash["rerun_nodes"], crash["double_payments"], crash["uncertain"]) == (0, 0, 1)
    assert units(figures, "uncertain_debited") > 0  # the chat that was killed did cost


def test_all_of_it_is_on_arweave_and_comes_back(demo: tuple[dict[str, Any], str, float]) -> None:
    figures, log, _ = demo
    assert figures["arweave"]["items"] > 0
    assert figures["restored"]["equal"] is True
    assert figures["restored"]["events"] > 100
    assert "WRONG" not in log


def test_it_takes_less_than_ninety_seconds(demo: tuple[dict[str, Any], str, float]) -> None:
    assert demo[2] < 90
