"""LangGraph threads in an agent's memory: what is stored, what is revived, what it costs."""

import operator
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import INTERRUPT, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel
from support.memory_fixtures import mind
from support.saved_threads import thread, writing

from agentkit.errors import ConfigError, MissingExtra, StateCorrupt, WrongInput
from agentkit.journal import events as e
from agentkit.tools import AgentKitSaver


async def test_a_fork_keeps_its_own_lists(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        app = writing(AgentKitSaver(agent=one))
        await app.ainvoke({"lines": [], "left": 4, "constant": ""}, thread("t"))
        whole = (await app.aget_state(thread("t"))).values["lines"]
        history = [state async for state in app.aget_state_history(thread("t"))]
        middle = next(state for state in history if len(state.values["lines"]) == 2)
        fork = await app.aupdate_state(middle.config, {"lines": ["another way"]})
        await app.ainvoke(None, fork)
        forked = (await app.aget_state(thread("t"))).values["lines"]
        assert forked == [*whole[:2], "another way", *whole[2:]]
        head = history[0].config
        assert (await app.aget_state(head)).values["lines"] == whole


async def test_a_list_that_did_not_just_grow_is_stored_whole(tmp_path: Path) -> None:
    class Rewritten(TypedDict):
        lines: list[str]
        left: list[list[str]]

    graph = StateGraph(Rewritten)
    graph.add_node("write", lambda s: {"lines": s["left"][0], "left": s["left"][1:]})
    graph.add_edge(START, "write")
    graph.add_conditional_edges("write", lambda s: "write" if s["left"] else END)
    asked = [["a"], ["b", "c"], ["b", "c", "d"], ["b", "c"], [], ["x"], ["x"], ["x", "y"]]
    async with mind(tmp_path) as one:
        app = graph.compile(checkpointer=AgentKitSaver(agent=one))
        await app.ainvoke({"lines": [], "left": asked}, thread("t"))
        history = [state.values.get("lines") async for state in app.aget_state_history(thread("t"))]
        assert history[::-1] == [None, [], *asked]
        entries = await one.memory.shelf("langgraph").commit(lambda shelf: shelf.every())
        added = [entry.value["added"] for entry in entries if '"value","lines"' in entry.name]
        assert added == [[], ["a"], ["b", "c"], ["d"], ["b", "c"], [], ["x"], [], ["y"]]


async def test_a_list_of_any_length_is_stored_in_links_that_fit(tmp_path: Path) -> None:
    lines = [f"{number} " + "x" * 100_000 for number in range(25)]
    async with mind(tmp_path) as one:
        saver = AgentKitSaver(agent=one)
        checkpoint = empty_checkpoint() | {"channel_values": {"lines": lines}}
        checkpoint["channel_versions"] = {"lines": "1"}
        await saver.aput(thread("t", checkpoint_ns=""), checkpoint, {}, {"lines": "1"})
        found = await saver.aget_tuple(thread("t"))
        assert found.checkpoint["channel_values"] == {"lines": lines}
        assert max(len(row.body) for row in await one.journal.rows(e.WALLET)) < 1_100_000
        names = await one.memory.shelf("langgraph").names()
        await saver.aprune(["t"])  # what the newest stands on is kept
        assert await one.memory.shelf("langgraph").names() == names


async def test_an_interrupted_thread_goes_on_in_another_process_with_its_messages(
    tmp_path: Path,
) -> None:
    class Talk(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]
        votes: Annotated[list[str], operator.add]

    def ask(state: Talk) -> dict[str, Any]:
        answer = interrupt({"question": "may I?", "at": datetime(2026, 1, 2, tzinfo=UTC)})
        return {"messages": [AIMessage(f"you said {answer}", usage_metadata=None)]}

    def build(saver: AgentKitSaver) -> Any:
        graph = StateGraph(Talk)
        graph.add_node("ask", ask)
        graph.add_node("vote", lambda state: {"votes": [state["who"]]})
        graph.add_edge(START, "ask")
        graph.add_conditional_edges(
            "ask", lambda _: [Send("vote", {"who": who}) for who in ("ann", "bob")], ["vote"]
        )
        return graph.compile(checkpointer=saver)

    async with mind(tmp_path) as one:
        said = HumanMessage("hello", id="1", additional_kwargs={"n": float("inf")})
        await build(AgentKitSaver(agent=one)).ainvoke({"messages": [said]}, thread("t"))
    async with mind(tmp_path) as later:
        app = build(AgentKitSaver(agent=later))
        state = await app.aget_state(thread("t"))
        assert state.interrupts[0].value["at"] == datetime(2026, 1, 2, tzinfo=UTC)
        result = await app.ainvoke(Command(resume="yes"), thread("t"))
        assert result["messages"][0] == said
        assert [type(m) for m in result["messages"]] == [HumanMessage, AIMessage]
        assert result["messages"][1].text == "you said yes"
        assert result["votes"] == ["ann", "bob"]


def test_blocking_calls_work_on_the_loop_that_is_running(tmp_path: Path) -> None:
    import asyncio

    async def in_a_notebook() -> list[str]:
        async with mind(tmp_path) as one:
            app = writing(AgentKitSaver(agent=one))
            app.invoke({"lines": [], "left": 2, "constant": ""}, thread("t"))
            return [state.metadata["source"] for state in app.get_state_history(thread("t"))]

    assert asyncio.run(in_a_notebook()) == ["loop", "loop", "loop", "input"]


async def test_writes_come_back_in_order_the_first_of_each_and_the_last_of_interrupts(
    tmp_path: Path,
) -> None:
    async with mind(tmp_path) as one:
        theirs, ours = InMemorySaver(), AgentKitSaver(agent=one)
        for saver in (theirs, ours):
            put = await saver.aput(thread("t", checkpoint_ns=""), empty_checkpoint(), {}, {})
            for task, path in (("b", "~2"), ("a", "~3"), ("c", "")):
                for turn in range(2):
                    writes = [("x", turn), (INTERRUPT, turn), *((f"y{n}", n) for n in range(12))]
                    await saver.aput_writes(put, writes, task, path)
        found = [await saver.aget_tuple(thread("t", checkpoint_ns="")) for saver in (theirs, ours)]
        assert found[0].pending_writes == found[1].pending_writes
        assert len(found[1].pending_writes) == 42


async def test_pruning_drops_what_nothing_needs_and_keeps_the_state(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        saver = AgentKitSaver(agent=one)
        app = writing(saver)
        await app.ainvoke({"lines": [], "left": 5, "constant": "c"}, thread("t"))
        state = await app.aget_state(thread("t"))
        shelf = one.memory.shelf("langgraph")
        before = len(await shelf.names())
        await saver.aprune(["t"])
        assert (await app.aget_state(thread("t"))).values == state.values
        assert len(await shelf.names()) < before / 2
        await app.ainvoke({"left": 1}, thread("t"))
        assert len((await app.aget_state(thread("t"))).values["lines"]) == 6
        await saver.adelete_thread("t")
        assert await shelf.names() == []
        with pytest.raises(ConfigError, match="not a way to prune"):
            await saver.aprune(["t"], strategy="keep_oldest")
        await one.journal.check()


# -- only plain values, and no class by its name -------------------------------------------------


class Topic(BaseModel):
    name: str
    at: datetime


@dataclass(frozen=True)
class Point:
    x: int
    tags: frozenset[str]


class Objects(TypedDict):
    topic: Topic
    point: Any


async def test_objects_are_stored_and_revived_only_where_their_class_was_named(
    tmp_path: Path,
) -> None:
    def build(saver: AgentKitSaver) -> Any:
        graph = StateGraph(Objects)
        graph.add_node("keep", lambda state: {"point": state["point"]})
        graph.add_edge(START, "keep")
        return graph.compile(checkpointer=saver)

    values = {"topic": Topic(name="a", at=datetime(2026, 1, 1, tzinfo=UTC))}
    values["point"] = Point(1, frozenset({"b", "a"}))
    async with mind(tmp_path) as one:
        with pytest.raises(WrongInput, match=r"test_checkpointer.Topic cannot be stored") as raised:
            await build(AgentKitSaver(agent=one)).ainvoke(values, thread("t"))
        assert "allow=" in raised.value.hint
        trusting = build(AgentKitSaver(agent=one, allow=[Topic, Point]))
        await trusting.ainvoke(values, thread("t"))
        assert (await trusting.aget_state(thread("t"))).values == values
        with pytest.raises(StateCorrupt, match="not among those that may be read"):
            await build(AgentKitSaver(agent=one)).aget_state(thread("t"))
        with pytest.raises(WrongInput, match="int cannot be stored"):
            AgentKitSaver(agent=one, allow=[int])


def test_without_langgraph_the_saver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agentkit.tools.checkpointer")
    for name in [name for name in sys.modules if name.split(".")[0] == "langgraph"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "langgraph", None)
    import agentkit.tools

    with pytest.raises(MissingExtra) as raised:
        _ = agentkit.tools.AgentKitSaver
    assert raised.value.hint == 'install it with: pip install "deai-agentkit[langgraph]"'
