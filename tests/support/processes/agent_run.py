"""An agent to be killed: begins a run of a graph, or goes on with the one that is there.

python agent_run.py FOLDER SHAPE        reads the number of the graph, prints `go`, then
                                    `first SECONDS` from resume to the first new event, and `done`
"""

import asyncio
import sys
import time
from pathlib import Path

from agentkit.graph.frozen import FrozenGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.runtime import run as runs
from support.killed_graphs import graph_of
from support.processes.provider_node import Away
from support.toy_market import Toy, toy


async def begun(market: Toy, graph: FrozenGraph) -> str | None:
    """Return the run of a graph that an earlier process began."""
    known = await market.journal.commit(lambda tx: tx.every(r.Run))
    return next((run.run for run in known if run.graph == graph.name), None)


async def tell_first(market: Toy, run: str, called: float) -> None:
    """Print how long after the call of resume its first event is durable."""
    rows = await market.journal.rows(run)
    resumed = max(row.seq for row in rows if row.kind == e.RunResumed.stored_name)
    while not await market.journal.rows(run, after=resumed, most=1):
        await asyncio.sleep(0.002)
    print("first", time.perf_counter() - called, flush=True)


async def main(folder: Path, shape: str, number: int) -> None:
    graph = graph_of(shape, number, folder).freeze()
    async with toy(folder, node=Away("node", folder / "node")) as market:
        known = await begun(market, graph)
        plan = None if known else await market.plan(graph)
        print("go", flush=True)
        called = time.perf_counter()
        if known:
            run = await runs.resume(market.means, known, graph=graph)
            if run.status.outcome == "running":  # it may have ended just before the kill
                await tell_first(market, known, called)
        else:
            assert plan
            run = await runs.start(market.means, plan)
        await run.result()
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.stdin.readline())))
