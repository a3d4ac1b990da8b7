"""What the executor costs for each node, next to plain asyncio + graphlib in the same run.

    python benchmarks/runtime.py --shape fan --nodes 1000 --json
    python benchmarks/runtime.py --shape layered --nodes 10000 --store memory
    python benchmarks/runtime.py --shape workflow.json --kind paid

Nodes are no-ops that mix their parents' values along; every value is checked.  The time is of
the run alone: planning and opening the state file are not in it.  `--shape FILE` takes the edges
of a workflow in WfFormat 1.5.  `--kind paid` buys every node: submit, verify, a toy rail, and the
rows of outcome and money in one transaction; the limits are for `local`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import graphlib
import json
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentkit.artifacts import Json, Text
from agentkit.graph.builder import JobGraph
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.refs import Ref
from agentkit.journal.in_memory import MemoryJournal
from agentkit.journal.journal import Journal
from agentkit.market.allowance import Allowance
from agentkit.market.plan import Plan
from agentkit.market.seams import Provider, Rail
from agentkit.market.task import Task
from agentkit.memory.artifacts.local import LocalStore
from agentkit.payments.budget import Budget
from agentkit.planner.planner import make_plan
from agentkit.planner.request import Market, Wish
from agentkit.runtime import run as runs
from agentkit.runtime.context import Resources
from agentkit.testing.fakes import NETWORK, FakeProvider, ToyRail

MODULUS = 1_000_003
WALLET = "0x" + "00" * 20

Parents = list[list[int]]


# -- shapes --------------------------------------------------------------------------------------


def shape(name: str, count: int) -> Parents:
    """Return each node's parents; positions are a topological order."""
    if name == "chain":
        return [[n - 1] if n else [] for n in range(count)]
    if name == "fan":
        return [[], *([0] for _ in range(count - 2)), list(range(1, count - 1))]
    if name == "layered":
        return layered(count)
    return workflow(Path(name))


def layered(count: int) -> Parents:
    """Two parents in the layer before, one anywhere earlier; as many layers as nodes in each."""
    draw, width = random.Random(7), max(2, round(count**0.5))
    parents: Parents = [[] for _ in range(min(width, count))]
    for node in range(width, count):
        top = node // width * width
        near = {draw.randrange(top - width, top) for _ in range(2)}
        parents.append(sorted(near | {draw.randrange(top)}))
    return parents


def workflow(file: Path) -> Parents:
    """Return the parents of the tasks of a WfFormat 1.5 file."""
    document = json.loads(file.read_text())
    if document.get("schemaVersion") != "1.5":
        raise SystemExit(f"{file} is not WfFormat 1.5")
    tasks = {t["id"]: t["parents"] for t in document["workflow"]["specification"]["tasks"]}
    number = {name: n for n, name in enumerate(graphlib.TopologicalSorter(tasks).static_order())}
    return [[number[above] for above in tasks[name]] for name in number]


def mixed(values: list[int]) -> int:
    return (1 + 31 * sum(values)) % MODULUS


def expected(parents: Parents) -> list[int]:
    values: list[int] = []
    for above in parents:
        values.append(mixed([values[p] for p in above]))
    return values


def settle_memory() -> None:
    """Have the collector pass over what was there before: it takes longer than some whole runs."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


# -- the reference -------------------------------------------------------------------------------


async def reference(parents: Parents) -> float:
    """Return the seconds plain asyncio + graphlib takes, a task for each node."""
    sorter = graphlib.TopologicalSorter(dict(enumerate(parents)))
    sorter.prepare()
    values, done = [0] * len(parents), asyncio.Queue[int]()

    async def body(number: int) -> int:
        return mixed([values[p] for p in parents[number]])

    async def one(number: int) -> None:
        values[number] = await body(number)
        done.put_nowait(number)

    live = set()
    settle_memory()
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


# -- ours ----------------------------------------------------------------------------------------


async def node(*inputs: Json) -> Json:
    return Json.dump(mixed([artifact.value for artifact in inputs]))


def local_graph(parents: Parents) -> FrozenGraph:
    graph, refs = JobGraph("bench"), list[Ref[Json]]()
    for number, above in enumerate(parents):
        refs.append(graph.local(f"n{number}", node, *(refs[p] for p in above)))
    return graph.freeze()


def paid_graph(parents: Parents) -> FrozenGraph:
    graph, refs = JobGraph("bench"), list[Ref[Json]]()
    for number, above in enumerate(parents):
        inputs = {f"i{p}": refs[p] for p in above}
        prompt = f"{number}: " + " ".join(f"{{{name}}}" for name in inputs)
        refs.append(graph.infer(f"n{number}", model="m", prompt=prompt, inputs=inputs))
    return graph.freeze()


def short_answer(task: Task) -> Text:
    """Answer as briefly as a number: words would grow from layer to layer."""
    return Text.of(task.digest[:6].encode())


@dataclass(frozen=True)
class Bench:
    """What is measured: a graph of some kind on some store."""

    frozen: FrozenGraph
    parents: Parents
    kind: str
    store: str

    async def ours(self, home: Path) -> tuple[float, int]:
        """Return the seconds our executor takes, and the bytes its state file grew to."""
        allowance = Allowance()
        paid = self.kind == "paid"
        providers: dict[str, Provider] = {}
        rails: dict[str, Rail] = {}
        if paid:
            provider = FakeProvider("toy", home / "toy", lanes=64)
            provider.answer = short_answer
            providers = {"toy": provider}
            rails = {"toy": ToyRail()}
        market = Market(NETWORK, providers, rails, allowance, WALLET, home)
        plan = await make_plan(self.frozen, market, Wish())
        journal = (
            await Journal.open(home, WALLET) if self.store == "sqlite" else MemoryJournal(home)
        )
        store = LocalStore(home / "artifacts")
        means = Resources(journal, providers, rails, Budget(allowance), allowance, store, home)
        took = await self._run(means, plan)
        await journal.close()
        return took, sum(file.stat().st_size for file in home.glob("state.db*"))

    async def _run(self, means: Resources, plan: Plan) -> float:
        settle_memory()
        started = time.perf_counter()
        run = await runs.start(means, plan)
        await run.ended()
        took = time.perf_counter() - started
        result = await run.result()
        if self.kind == "local":
            values = [result[f"n{n}"].value for n in range(len(self.parents))]  # type: ignore[attr-defined]
            assert values == expected(self.parents)
        else:
            assert len(result.receipts) == len(self.parents)
        return took


def bare_commits(home: Path, times: int = 200) -> list[float]:
    """Return the seconds that commits of one row take on a bare SQLite connection."""
    db, took = sqlite3.connect(home / "bare.db", isolation_level=None), []
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("create table rows(number integer primary key, body text)")
    for number in range(times):
        started = time.perf_counter()
        db.execute("begin immediate")
        db.execute("insert into rows values(?,?)", (number, "x" * 300))
        db.execute("commit")
        took.append(time.perf_counter() - started)
    db.close()
    return took


# -- cold start ----------------------------------------------------------------------------------


def cold_start() -> tuple[float, float]:
    """Return the median seconds of a process to its first durable node, and of a bare one."""
    ours, bare = [], []
    for _ in range(3):
        bare.append(_process(["-c", "import pydantic"]))
        with tempfile.TemporaryDirectory() as folder:
            ours.append(_process([__file__, "--first-node", folder]))
    return statistics.median(ours), statistics.median(bare)


def _process(arguments: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True)
    return time.perf_counter() - started


# -- the figures ---------------------------------------------------------------------------------


async def measure(options: argparse.Namespace) -> dict[str, object]:
    parents = shape(options.shape, options.nodes)
    count = len(parents)
    frozen = (local_graph if options.kind == "local" else paid_graph)(parents)
    bench = Bench(frozen, parents, options.kind, options.store)
    plain, own, commits, size = list[float](), list[float](), list[float](), 0
    for _ in range(options.rounds):
        plain.append(await reference(parents))
        with tempfile.TemporaryDirectory() as folder:
            took, size = await bench.ours(Path(folder))
            own.append(took)
            commits += bare_commits(Path(folder))
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    us, reference_us = (1e6 * statistics.median(x) / count for x in (own, plain))
    cold, bare = cold_start()
    return {
        "shape": options.shape,
        "nodes": count,
        "store": options.store,
        "us_per_node": round(us, 1),
        "reference_us": round(reference_us, 1),
        "ratio": round(us / reference_us, 2),
        "commit_us": round(1e6 * statistics.median(commits)),
        "rss_mb": rss,
        "store_bytes_per_node": size // count,
        "cold_start_s": round(cold - bare, 3),
        "bare_start_s": round(bare, 3),
        "kind": options.kind,
    }


def first_node(folder: Path) -> None:
    """Do one node and have it on disk: what a cold start is measured by."""
    bench = Bench(local_graph([[]]), [[]], "local", "sqlite")
    asyncio.run(bench.ours(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="fan", help="chain, fan, layered or a WfFormat file")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--store", choices=["memory", "sqlite"], default="sqlite")
    parser.add_argument("--kind", choices=["local", "paid"], default="local")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--first-node", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first_node:
        return first_node(options.first_node)
    figures = asyncio.run(measure(options))
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>22}  {value}")
    return None


if __name__ == "__main__":
    main()
