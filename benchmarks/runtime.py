"""What the executor costs for each node, next to plain asyncio + graphlib in the same run.

    python benchmarks/runtime.py --shape fan --nodes 1000 --json

Nodes are `local` no-ops that mix their parents' values along; every value is checked.  The time
is of the run alone: planning and opening the state file are not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import graphlib
import json
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path

from agentkit.artifacts import Json
from agentkit.graph.builder import JobGraph
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.refs import Ref
from agentkit.journal import events
from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.memory.local import LocalStore
from agentkit.payments.budget import Budget
from agentkit.planner.planner import Market, Wish, make_plan
from agentkit.runtime import run as runs
from agentkit.runtime.means import Means
from agentkit.testing.fakes import NETWORK

MODULUS = 1_000_003
WALLET = "0x" + "00" * 20

Parents = list[list[int]]


def shape(name: str, count: int) -> Parents:
    """Return each node's parents; positions are a topological order."""
    if name == "chain":
        return [[n - 1] if n else [] for n in range(count)]
    if name == "fan":
        return [[], *([0] for _ in range(count - 2)), list(range(1, count - 1))]
    draw, width = random.Random(7), max(2, round(count**0.5))
    parents: Parents = [[] for _ in range(min(width, count))]
    for node in range(width, count):
        before = (node // width - 1) * width
        near = {draw.randrange(before, before + width) for _ in range(2)}
        parents.append(sorted(near | {draw.randrange(before + width)}))
    return parents


def mixed(values: list[int]) -> int:
    return (1 + 31 * sum(values)) % MODULUS


def expected(parents: Parents) -> list[int]:
    values: list[int] = []
    for above in parents:
        values.append(mixed([values[p] for p in above]))
    return values


def node(*inputs: Json) -> Json:
    return Json.dump(mixed([artifact.value for artifact in inputs]))


async def reference(parents: Parents) -> float:
    """Return the seconds plain asyncio + graphlib takes."""
    sorter = graphlib.TopologicalSorter(dict(enumerate(parents)))
    sorter.prepare()
    values, done = [0] * len(parents), asyncio.Queue[int]()

    async def one(number: int) -> None:
        values[number] = mixed([values[p] for p in parents[number]])
        done.put_nowait(number)

    live = set()
    started = time.perf_counter()
    while sorter.is_active():
        for number in sorter.get_ready():
            task = asyncio.create_task(one(number))
            live.add(task)
            task.add_done_callback(live.discard)
        sorter.done(await done.get())
        while not done.empty():
            sorter.done(done.get_nowait())
    took = time.perf_counter() - started
    assert values == expected(parents)
    return took


def graph_of(name: str, parents: Parents) -> FrozenGraph:
    graph, refs = JobGraph(name), list[Ref[Json]]()
    for number, above in enumerate(parents):
        refs.append(graph.local(f"n{number}", node, *(refs[p] for p in above)))
    return graph.freeze()


async def ours(frozen: FrozenGraph, parents: Parents, home: Path) -> tuple[float, int]:
    """Return the seconds our executor takes, and the bytes its state file grew to."""
    allowance, store = Allowance(), LocalStore(home / "artifacts")
    market = Market(NETWORK, {}, {}, allowance, WALLET, home)
    plan = await make_plan(frozen, market, Wish())
    journal = await Journal.open(home, WALLET)
    means = Means(journal, {}, {}, Budget(allowance), allowance, store, home)
    started = time.perf_counter()
    run = await runs.start(means, plan)
    await asyncio.shield(run._task)
    took = time.perf_counter() - started
    result = await run.result()
    assert [result[f"n{n}"].value for n in range(len(parents))] == expected(parents)  # type: ignore[attr-defined]
    await journal.close()
    return took, sum(file.stat().st_size for file in home.glob("state.db*"))


async def commit_seconds(home: Path, times: int = 50) -> float:
    """Return the median seconds of one durable commit of an event by itself."""
    journal, took = await Journal.open(home, WALLET), []
    for _ in range(times):
        started = time.perf_counter()
        await journal.commit(
            lambda tx: tx.append(events.WALLET, events.NoteAdded(topic="a", text="b"))
        )
        took.append(time.perf_counter() - started)
    await journal.close()
    return statistics.median(took)


async def measure(name: str, count: int, rounds: int) -> dict[str, object]:
    parents = shape(name, count)
    frozen = graph_of(name, parents)
    plain, own, size = [], [], 0
    gc.collect()
    gc.freeze()  # a full collection of what imports left takes longer than some whole rounds
    for _ in range(rounds):
        plain.append(await reference(parents))
        with tempfile.TemporaryDirectory() as folder:
            took, size = await ours(frozen, parents, Path(folder))
        own.append(took)
    with tempfile.TemporaryDirectory() as folder:
        commit = await commit_seconds(Path(folder))
    us, reference_us = (1e6 * statistics.median(x) / count for x in (own, plain))
    return {
        "shape": name,
        "nodes": count,
        "store": "sqlite",
        "us_per_node": round(us, 1),
        "reference_us": round(reference_us, 1),
        "ratio": round(us / reference_us, 2),
        "commit_us": round(1e6 * commit),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "store_bytes_per_node": size // count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=["chain", "fan", "layered"], default="fan")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.shape, options.nodes, options.rounds))
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>22}  {value}")


if __name__ == "__main__":
    main()
