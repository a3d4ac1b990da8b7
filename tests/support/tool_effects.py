"""A world that remembers what tools did to it, and LangGraph threads whose tools change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode

from agentkit.journal.journal import Journal
from agentkit.sync import block_on
from agentkit.tools.effect_journals import JOURNALS


class Killed(BaseException):
    """Ends a call as SIGKILL does: nothing that catches errors sees it."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder for effects; its journal is closed after the test."""
    yield tmp_path / "effects"
    block_on(JOURNALS.close())


async def begun_effects(journal: Journal) -> int:
    """Return how many times a tool began, of all that are on record."""
    rows = await journal.rows("wallet")
    return sum(row.kind == "EffectBegun" for row in rows)


class Talk(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def tool_call(tool: str, number: int = 1, **arguments: Any) -> dict[str, Any]:
    """Return a call of a tool as models make it; its id goes by the number."""
    return {"type": "tool_call", "name": tool, "id": f"call-{number}", "args": arguments}


def talking(tools: Sequence[BaseTool], calls: Sequence[dict[str, Any]], **compiled: Any) -> Any:
    """Return a graph whose model calls tools in one message, and says no more after it."""

    def model(state: Talk) -> dict[str, Any]:
        return {"messages": [AIMessage("", tool_calls=list(calls))]}

    graph = StateGraph(Talk)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode(list(tools)))
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_edge("tools", END)
    return graph.compile(**compiled)


def answers(state: dict[str, Any]) -> list[str]:
    """Return what tools answered, in the order of their calls."""
    messages = [message for message in state["messages"] if isinstance(message, ToolMessage)]
    return [str(message.content) for message in messages]


def thread(name: str = "t") -> Any:
    return {"configurable": {"thread_id": name}}
