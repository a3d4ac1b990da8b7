"""What LangGraph's SqliteSaver writes for steps of text; runs in an environment of its own.

python peer_langgraph.py < texts.json
"""

import json
import operator
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    messages: Annotated[list[dict[str, str]], operator.add]
    done: int


def written(db: sqlite3.Connection) -> int:
    """Return the bytes in the rows of checkpoints and writes."""
    total = 0
    for table, columns in (("checkpoints", "checkpoint, metadata"), ("writes", "value")):
        sizes = "+".join(f"coalesce(length({column}), 0)" for column in columns.split(", "))
        total += db.execute(f"select coalesce(sum({sizes}), 0) from {table}").fetchone()[0]
    return total


def main(texts: list[str]) -> None:
    def step(state: State) -> dict[str, Any]:
        said = {"role": "assistant", "content": texts[state["done"]]}
        return {"messages": [said], "done": state["done"] + 1}

    graph = StateGraph(State)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges(
        "step", lambda state: END if state["done"] == len(texts) else "step", ["step", END]
    )
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder) / "saved.db", check_same_thread=False)
        compiled = graph.compile(checkpointer=SqliteSaver(db))
        thread = {"configurable": {"thread_id": "t"}, "recursion_limit": len(texts) + 5}
        compiled.invoke({"messages": [], "done": 0}, thread, durability="sync")
        total = written(db)
        db.close()
    steps = len(texts)
    print(json.dumps({"langgraph_bytes_per_step": round(total / steps), "langgraph_steps": steps}))


if __name__ == "__main__":
    main(json.load(sys.stdin))
