"""LangGraph with its SQLite checkpointer, durability sync: a node and a state key for each node.

Each node declares the keys that it reads, which is the cheap way: else it is given the whole state.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict

import common
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph


def keys(numbers: list[int]) -> list[str]:
    return [f"value{number}" for number in numbers]


def schema(name: str, numbers: list[int]) -> Any:
    return TypedDict(name, dict.fromkeys(keys(numbers), int), total=False)  # type: ignore[operator]


def action(number: int, above: list[int]) -> Callable[[Any], Awaitable[dict[str, int]]]:
    async def act(state: dict[str, int]) -> dict[str, int]:
        return {f"value{number}": common.mixed([state[key] for key in keys(above)])}

    return act


def compiled(parents: list[list[int]], saver: AsyncSqliteSaver) -> Any:
    graph = StateGraph(schema("State", list(range(len(parents)))))
    for number, above in enumerate(parents):
        reads = schema(f"Reads{number}", above or [number])
        graph.add_node(f"node{number}", action(number, above), input_schema=reads)
    for number, above in enumerate(parents):
        graph.add_edge([f"node{p}" for p in above] if above else START, f"node{number}")
    for number in set(range(len(parents))).difference(*parents):
        graph.add_edge(f"node{number}", END)
    return graph.compile(checkpointer=saver)


async def main(trial: common.Trial) -> None:
    names = keys(list(range(len(trial.parents))))
    async with AsyncSqliteSaver.from_conn_string(str(trial.home / "langgraph.sqlite")) as saver:
        await saver.setup()
        graph = compiled(trial.parents, saver)
        for turn in trial.turns:
            thread = {"recursion_limit": len(names) + 9, "configurable": {"thread_id": str(turn)}}
            trial.start()
            state = await graph.ainvoke({names[0]: 0}, thread, durability="sync")
            trial.stop([state[name] for name in names])


if __name__ == "__main__":
    trial = common.Trial()
    asyncio.run(main(trial))
    trial.report()
