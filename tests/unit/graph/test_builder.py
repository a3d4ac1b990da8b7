"""What cannot be written down is refused when the graph is built, and the node is named."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from agentkit.errors import WrongInput
from agentkit.graph.builder import JobGraph


def nested(depth: int) -> Any:
    return reduce(lambda inner, _: {"items": inner}, range(depth), {"type": "string"})


@pytest.mark.parametrize("name", ["größe", "", "1st", "a b", "a" * 65, "a\ud83d", None, 7])
def test_a_graph_has_a_name_that_everybody_can_write(name: Any) -> None:
    graph = JobGraph(name)
    graph.infer("a", model="m", prompt="p")
    with pytest.raises(WrongInput, match="is not a name for a graph"):
        graph.freeze()


@pytest.mark.parametrize("name", ["größe", "", "a b", "a\ud83d"])
def test_a_node_has_one_too(name: str) -> None:
    with pytest.raises(WrongInput):
        JobGraph("g").infer(name, model="m", prompt="p")


@pytest.mark.parametrize(
    "more",
    [
        {"prompt": "a\ud83d"},
        {"model": "m\udc00"},
        {"stop": ["\ud83d"]},
        {"output": nested(300)},
        {"output": {"enum": ["\ud83d"]}},
    ],
    ids=["prompt", "model", "stop", "deep schema", "schema"],
)
def test_a_text_that_utf8_has_not_names_its_node(more: dict[str, Any]) -> None:
    graph = JobGraph("g")
    with pytest.raises(WrongInput, match="'ask'"):
        graph.infer("ask", **{"model": "m", "prompt": "p", **more})
        graph.freeze()
