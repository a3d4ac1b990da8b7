"""LangGraph threads in an agent's memory: what is stored, what is revived, what it costs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from support.memory_fixtures import elsewhere, mind
from support.saved_threads import thread, writing

from agentkit.journal import events as e
from agentkit.tools import AgentKitSaver


async def stored_bytes(one: Any) -> int:
    return sum(len(row.body) for row in await one.journal.rows(e.WALLET))


async def test_a_step_stores_what_is_new_and_nothing_else(tmp_path: Path) -> None:
    async with mind(tmp_path) as one:
        app = writing(AgentKitSaver(agent=one))
        begin = {"lines": [], "left": 40, "constant": "x" * 100_000}
        await app.ainvoke(begin, thread("t"))
        first = await stored_bytes(one)
        assert first < 3 * 100_000 + 40 * 4_000  # what is given is input, write and value
        await app.ainvoke({"lines": [], "left": 40}, thread("t"))
        assert await stored_bytes(one) - first < 40 * 4_000
        state = await app.aget_state(thread("t"))
        assert len(state.values["lines"]) == 80
        assert state.values["constant"] == "x" * 100_000
        async with elsewhere(one, tmp_path) as other:
            again = writing(AgentKitSaver(agent=other))
            assert (await again.aget_state(thread("t"))).values == state.values
            histories = [
                [
                    (s.config, s.values, s.metadata)
                    async for s in app_.aget_state_history(thread("t"))
                ]
                for app_ in (app, again)
            ]
            assert len(histories[0]) == 84
            assert histories[0] == histories[1]


# -- without langgraph ---------------------------------------------------------------------------


def test_tools_load_neither_langchain_nor_langgraph_until_used() -> None:
    code = "import sys, agentkit.tools as t; print(*t.__all__); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, modules = told.stdout.splitlines()
    assert "AgentKitSaver" in names
    assert not {"langgraph", "langchain_core"} & set(modules.split())
