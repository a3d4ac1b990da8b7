"""A payer on two chains, to be killed: begins a run over a list of addresses, or goes on with it.

python two_network_buyer.py ORDERS    ORDERS is a JSON file with the agent's settings, the addresses
and the budget.  Prints `done` at the end, else why the run is paused.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from agentkit.agent import Agent
from agentkit.errors import PlanError, RunPaused
from agentkit.graph.builder import JobGraph
from agentkit.providers import web


async def here_too(host: str) -> bool:
    """The shops are on loopback."""
    return True


async def main(orders: dict[str, Any]) -> str:
    setattr(web, "is_public", here_too)  # noqa: B010  # a name that the module imports
    async with Agent.from_config(**orders["settings"]) as agent:
        try:
            known = await agent.runs()
            if not known:
                await agent.run(shopping(orders["urls"]), budget=orders["budget"])
            for row in known:
                if row.state != "done":
                    await (await agent.resume(row.run)).result()
        except PlanError as unplanned:  # nothing was spent
            return f"not planned: {unplanned}"
        except RunPaused as paused:
            return f"paused: {paused}"
    return "done"


def shopping(urls: list[str]) -> JobGraph:
    graph = JobGraph("shopping")
    for number, url in enumerate(urls):
        graph.request(f"buy{number}", url=url, method="POST", body={"number": number})
    return graph


if __name__ == "__main__":
    print(asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()))), flush=True)
