"""Programs that call a tool with an effect, and are killed at a moment that a test chooses.

python tool_caller.py thread HOME WORLD MOMENT GUARD   a LangGraph thread that charges for an order
python tool_caller.py calls HOME WORLD COUNT           the same calls from the first on, over again
python tool_caller.py race HOME WORLD                  one call, whose tool waits for WORLD.gate
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode

from agentkit.tools import NOT_HAPPENED, AgentKitSaver, once
from agentkit.tools.once_policy import OncePolicy
from support.memory_fixtures import Mind, mind
from support.tool_effects import Talk, thread, tool_call

BEFORE_EFFECT = "before the effect"
AFTER_EFFECT = "after the effect"
AFTER_RECORD = "after the record"
NEVER = "never"


class World:
    """What tools did, in a file: a line for each effect, on disk before the tool goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def do(self, what: str) -> str:
        with self.path.open("a") as file:
            file.write(f"{what}\n")
            file.flush()
            os.fsync(file.fileno())
        return f"did {what}"

    @property
    def done(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def find(self, what: str) -> Any:
        """Say what became of an effect, as a shop does that is asked for an order."""
        return f"found {what}" if what in self.done else NOT_HAPPENED


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal comes before this ends


def charging(world: World, moment: str) -> BaseTool:
    @tool
    def charge(what: str) -> str:
        """Charge for an order."""
        if moment == BEFORE_EFFECT:
            die()
        told = world.do(what)
        if moment == AFTER_EFFECT:
            die()
        return told

    return charge


def acharging(world: World, moment: str) -> BaseTool:
    plain: Any = charging(world, moment)

    @tool
    async def charge(what: str) -> str:
        """Charge for an order."""
        return str(plain.func(what))

    return charge


GUARDS: dict[str, Any] = {
    "sync": lambda one, world, moment, how: once(charging(world, moment), agent=one, **how),
    "async": lambda one, world, moment, how: once(acharging(world, moment), agent=one, **how),
    "none": lambda one, world, moment, how: charging(world, moment),
}


def shop(one: Mind, world: World, moment: str = NEVER, guard: str = "sync", **how: Any) -> Any:
    """Return a graph that charges for one order and dies at a moment; counts its tool node."""
    tools = ToolNode([GUARDS[guard](one, world, moment, how)])
    entries = World(world.path.with_suffix(".entries"))

    def model(state: Talk) -> dict[str, Any]:
        return {"messages": [AIMessage("", tool_calls=[tool_call("charge", what="order 7")])]}

    async def node(state: Talk, config: RunnableConfig) -> Any:
        entries.do("entered")
        answer = await tools.ainvoke(state, config)
        if moment == AFTER_RECORD:
            die()
        return answer

    graph = StateGraph(Talk)
    graph.add_node("model", model)
    graph.add_node("tools", node)
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_edge("tools", END)
    return graph.compile(checkpointer=AgentKitSaver(agent=one))


async def run_thread(home: Path, world: World, moment: str, guard: str) -> None:
    async with mind(home) as one:
        app = shop(one, world, moment, guard)
        await app.ainvoke({"messages": ["go"]}, thread(), durability="sync")


def run_calls(home: Path, world: World, count: int) -> None:
    """Call the tool for each order; say `inside` in it, `asked` when it is asked for one."""

    @tool
    def charge(what: str) -> str:
        """Charge for an order."""
        print("inside", what, flush=True)
        time.sleep(0.005)  # so that kills fall on both sides of the effect
        told = world.do(what)
        time.sleep(0.005)
        return told

    def find(what: str) -> Any:
        print("asked", what, flush=True)
        return world.find(what)

    guarded = once(charge, home=home, on_unknown=find)
    for number in range(count):
        guarded.invoke(tool_call("charge", number, what=f"order {number}"))
    print("finished", flush=True)


def run_race(home: Path, world: World) -> None:
    """Call the tool; say `inside` in it, `waiting` while another call has it, and the answer."""
    gate = world.path.with_suffix(".gate")

    @tool
    def charge(what: str) -> str:
        """Charge for an order."""
        print("inside", flush=True)
        while not gate.exists():
            time.sleep(0.01)
        return world.do(f"{what} by {os.getpid()}")

    check_time = OncePolicy._check_time

    def told(self: OncePolicy, until: float) -> None:
        print("waiting", flush=True)
        check_time(self, until)

    OncePolicy._check_time = told  # type: ignore[method-assign]
    answer = once(charge, home=home).invoke(tool_call("charge", what="order 7"))
    print("answer", answer.content, flush=True)


if __name__ == "__main__":
    what, home_folder, world_file, *more = sys.argv[1:]
    the_world = World(Path(world_file))
    if what == "thread":
        asyncio.run(run_thread(Path(home_folder), the_world, *more))
    elif what == "calls":
        run_calls(Path(home_folder), the_world, int(more[0]))
    else:
        run_race(Path(home_folder), the_world)
