"""A process that works with kinds of another package, or that sees their runs without it.

python outside_kinds.py FOLDER start    plans and runs the graph of FOLDER, prints `halfway` once
                                        two translations were done, and waits there to be killed
python outside_kinds.py FOLDER resume   goes on with the run, and prints the texts by node
python outside_kinds.py FOLDER look     prints what is on record, and what `resume` says
python outside_kinds.py FOLDER cancel   ends the run for good
"""

import asyncio
import json
import sys
from pathlib import Path

from agentkit.artifacts import Artifact, Text
from agentkit.errors import AgentKitError
from agentkit.graph.builder import JobGraph
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.run_state import RunState
from agentkit.market.plan import Plan
from agentkit.market.task import Task
from agentkit.runtime import run as runs
from support.toy_market import GatedProvider, Toy, toy


def translated(task: Task) -> Artifact:
    """Do a translation as the fake provider does it."""
    return Text.of(f"{task.params['language']}: ".encode() + task.inputs["text"].read())


async def start(market: Toy, provider: GatedProvider) -> None:
    graph = JobGraph.load(market.folder / "letters.toml")
    plan = await market.plan(graph)
    plan.save(market.folder / "plan.json")
    await runs.start(market.means, Plan.load(market.folder / "plan.json"))
    await provider.reached.wait()
    print("halfway", flush=True)
    await asyncio.Event().wait()


async def the_run(market: Toy) -> str:
    (run,) = await market.journal.commit(lambda tx: tx.every(r.Run))
    return run.run


async def resume(market: Toy, provider: GatedProvider) -> None:
    provider.open()
    run = await runs.resume(market.means, await the_run(market))
    result = await run.result()
    texts = {name: outs[0].read().decode() for name, outs in result.artifacts.items()}
    print(json.dumps({"texts": texts, "receipts": len(result.receipts)}))


async def look(market: Toy, _: GatedProvider) -> None:
    run = await the_run(market)
    state = RunState.of(run, await market.journal.history(run))
    text = state.encode()
    assert RunState.read(run, text).encode() == text  # a snapshot of it can be restored
    graph = state.planned.graph
    try:
        resumed = await runs.resume(market.means, run)
        await resumed.stop()
        said, hint = "", ""
    except AgentKitError as error:
        said, hint = f"{type(error).__name__}: {error}", error.hint
    seen = {
        "outcome": state.outcome,
        "kinds": sorted({node.kind for node in graph.nodes}),
        "digest": graph.digest,
        "plan": state.planned.id,
        "table": str(state.planned).split("\n", 1)[1],  # the first line says how old it is
        "receipts": len(state.receipts),
        "loaded": sorted(name for name in sys.modules if name.startswith("agentkit_")),
        "resume": said,
        "hint": hint,
    }
    print(json.dumps(seen))


async def cancel(market: Toy, _: GatedProvider) -> None:
    run = await the_run(market)
    asked = e.CancelAsked(run=run)
    await market.journal.commit(lambda tx: tx.append(e.WALLET, asked))
    await (await runs.resume(market.means, run)).ended()
    state = RunState.of(run, await market.journal.history(run))
    left = [attempt for purchase in state.purchases.values() for attempt in purchase.open]
    print(json.dumps({"outcome": state.outcome, "open": left}))


async def main(folder: Path, verb: str) -> None:
    provider = GatedProvider("one", folder / "one", free=2, lanes=1)
    provider.answer = translated
    async with toy(folder, one=provider) as market:
        verbs = {"start": start, "resume": resume, "look": look, "cancel": cancel}
        await verbs[verb](market, provider)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
