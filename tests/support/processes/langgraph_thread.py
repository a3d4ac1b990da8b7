"""A LangGraph thread to be killed: writes lines until none is left, and says which it writes.

python langgraph_thread.py HOME LINES        prints `line N` once every line before it is durable
"""

from __future__ import annotations

import asyncio
import operator
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from agentkit.tools import AgentKitSaver
from support.memory_fixtures import Mind, mind

THREAD: Any = {"configurable": {"thread_id": "to be killed"}, "recursion_limit": 10_000}


class Lines(TypedDict):
    lines: Annotated[list[str], operator.add]
    left: int


def line(number: int) -> str:
    return f"line {number} " * 50


def writing(one: Mind) -> Any:
    def write(state: Lines) -> dict[str, Any]:
        number = len(state["lines"])
        print("line", number, flush=True)
        return {"lines": [line(number)], "left": state["left"] - 1}

    graph = StateGraph(Lines)
    graph.add_node("write", write)
    graph.add_edge(START, "write")
    graph.add_conditional_edges("write", lambda state: "write" if state["left"] else END)
    return graph.compile(checkpointer=AgentKitSaver(agent=one))


async def go(one: Mind, lines: int) -> None:
    """Begin the thread, or go on with it."""
    app = writing(one)
    begun = (await app.aget_state(THREAD)).values
    await app.ainvoke(None if begun else {"lines": [], "left": lines}, THREAD, durability="sync")


async def main(home: Path, lines: int) -> None:
    async with mind(home) as one:
        await go(one, lines)
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
