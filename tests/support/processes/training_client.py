"""A client to be killed while a node trains for it: prints its run's id, then waits."""

import asyncio
import sys
from pathlib import Path

from agentkit.agent import Agent
from agentkit.graph.builder import JobGraph


async def main() -> None:
    folder, rows = Path(sys.argv[1]), sys.argv[2]
    graph = JobGraph("long")
    data = graph.data("rows", source=rows)
    head = graph.train("head", base="all-minilm-l6-v2", dataset=data, epochs=50)
    graph.infer("said", model=head, prompt="salt water")
    async with Agent.from_config(home=folder / "home") as agent:
        run = await agent.start(await agent.plan(graph, balance=False))
        print(run.id, flush=True)
        await run.result()


if __name__ == "__main__":
    asyncio.run(main())
