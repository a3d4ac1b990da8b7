"""What hedging does to the slow tail of a mapped node, next to the same run without it.

    python benchmarks/hedging.py --items 1000 --json

One provider takes 20 times as long for 5 of 100 calls, drawn by a seed; a second one is asked
by the runtime's own rule.  Providers are fakes that sleep; nothing else is simulated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
from pathlib import Path
from unittest.mock import patch

from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal.in_memory import MemoryJournal
from agentkit.market.allowance import Allowance
from agentkit.market.attempt import Attempt, JobStatus, Payment
from agentkit.market.offer import Offer
from agentkit.market.task import Task
from agentkit.memory.artifacts.local import LocalStore
from agentkit.payments.budget import Budget
from agentkit.planner.planner import make_plan
from agentkit.planner.request import Market, Wish
from agentkit.runtime import hedging
from agentkit.runtime import run as runs
from agentkit.runtime.context import Resources
from agentkit.testing.fakes import NETWORK, FakeProvider, ToyRail

WALLET = "0x" + "00" * 20
USUAL, SLOW, SHARE = 0.05, 20, 0.05
"""Seconds a call takes, how many times as long a slow one, and the share of slow ones."""

LANES = 16
"""Calls that each provider takes at once."""


class Straggling(FakeProvider):
    """Takes very long for the calls whose numbers are in `slow`."""

    slow: set[int]
    calls = 0

    async def submit(
        self, task: Task, offer: Offer, attempt: Attempt, payment: Payment
    ) -> JobStatus:
        self.calls += 1
        await asyncio.sleep(USUAL * (SLOW if self.calls in self.slow else 1))
        return await super().submit(task, offer, attempt, payment)


def providers(home: Path, items: int, seed: int) -> dict[str, FakeProvider]:
    found: dict[str, FakeProvider] = {}
    for factor, name in enumerate(("one", "two"), 1):
        provider = Straggling(name, home / name, factor=factor, lanes=LANES)
        draw = random.Random(f"{seed} {name}")
        provider.slow = set(draw.sample(range(1, items + 1), round(items * SHARE)))
        found[name] = provider
    return found


def graph(home: Path, items: int) -> JobGraph:
    rows = "".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(items))
    (home / "rows.jsonl").write_text(rows)
    job = JobGraph("hedged")
    table = job.data("rows", source="rows.jsonl")
    job.infer("label", model="m", over=table, prompt="{text}", max_items=items)
    return job


async def tail(items: int, seed: int) -> tuple[float, float, int, int]:
    """Return median and 99th percentile of an item's seconds, the calls made, and those paid."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        known = providers(home, items, seed)
        market = Market(NETWORK, known, {"toy": ToyRail()}, Allowance(), WALLET, home)
        plan = await make_plan(graph(home, items).freeze(), market, Wish())
        journal = MemoryJournal(home)
        store = LocalStore(home / "artifacts")
        means = Resources(
            journal, known, {"toy": ToyRail()}, Budget(Allowance()), Allowance(), store, home
        )
        run = await runs.start(means, plan)
        await run.ended()
        took, calls = seconds_of(journal, run.id)
        return (*percentiles(took), calls, len((await run.result()).receipts))


def seconds_of(journal: MemoryJournal, run: str) -> tuple[list[float], int]:
    """Return how long each item took from its first attempt to its receipt, and the attempts."""
    opened: dict[int, float] = {}
    took, calls = [], 0
    for at, event in journal.timed_events(run):
        if isinstance(event, e.AttemptOpened):
            opened.setdefault(event.attempt.item or 0, at)
            calls += 1
        elif isinstance(event, e.ItemDone):
            took.append(at - opened[event.item])
    return took, calls


def percentiles(took: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(took, n=100)
    return cuts[49], cuts[98]


async def measure(items: int, seed: int) -> dict[str, object]:
    median, p99, calls, paid = await tail(items, seed)
    with patch.object(hedging, "MOST_EXTRA", 0.0):
        plain_median, plain_p99, plain_calls, plain_paid = await tail(items, seed)
    return {
        "items": items,
        "seed": seed,
        "p50_s": round(median, 3),
        "p99_s": round(p99, 3),
        "unhedged_p50_s": round(plain_median, 3),
        "unhedged_p99_s": round(plain_p99, 3),
        "p99_ratio": round(plain_p99 / p99, 2),
        "calls": calls,
        "unhedged_calls": plain_calls,
        "extra_calls": round(calls / plain_calls - 1, 4),
        "paid": paid,
        "unhedged_paid": plain_paid,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.items, options.seed))
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>16}  {value}")


if __name__ == "__main__":
    main()
