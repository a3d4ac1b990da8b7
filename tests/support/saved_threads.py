"""A thread of LangGraph that writes long lines, for a saver to keep."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from agentkit.tools import AgentKitSaver


class Lines(TypedDict):
    lines: Annotated[list[str], operator.add]
    left: int
    constant: str


def writing(saver: AgentKitSaver) -> Any:
    """Return a graph that writes a line of 1 KB a step, until none is left."""
    graph = StateGraph(Lines)
    graph.add_node("write", lambda s: {"lines": [f"{s['left']:04d} " * 200], "left": s["left"] - 1})
    graph.add_edge(START, "write")
    graph.add_conditional_edges("write", lambda s: "write" if s["left"] else END)
    return graph.compile(checkpointer=saver)


def thread(name: str, **more: Any) -> Any:
    return {"configurable": {"thread_id": name, **more}, "recursion_limit": 1000}
