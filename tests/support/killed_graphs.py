"""The graphs that are killed: nodes here and nodes that are bought, some in a row, some at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentkit.artifacts import Artifact
from agentkit.graph.builder import JobGraph
from agentkit.graph.refs import Ref

LAYERS, WIDTH = 6, 10
FAN, ROWS, CHAIN = 60, 60, 10


class Noted:
    """Functions that write down when they were called; only this process has them."""

    def __init__(self, graph: JobGraph, folder: Path) -> None:
        self._graph, self._log = graph, folder / "calls.log"

    def local(self, name: str, *above: Ref[Any]) -> Ref[Any]:
        def here(*inputs: Artifact) -> int:
            with self._log.open("a") as log:
                log.write(f"{self._graph.name} {name}\n")
            return len(name) + sum(len(artifact.read()) for artifact in inputs)

        return self._graph.local(name, here, *above)

    def bought(self, name: str, above: Ref[Any]) -> Ref[Any]:
        return self._graph.infer(name, model="m", prompt=name + " {n}", inputs={"n": above})


def chain(graph: JobGraph, folder: Path) -> None:
    noted = Noted(graph, folder)
    last = noted.local("root")
    for n in range(CHAIN):
        last = noted.local(f"here{n}", noted.bought(f"there{n}", last))


def fan(graph: JobGraph, folder: Path) -> None:
    noted = Noted(graph, folder)
    root = noted.local("root")
    noted.local("join", *(noted.bought(f"ask{n}", root) for n in range(FAN)))


def layered(graph: JobGraph, folder: Path) -> None:
    """Layers of nodes here and of bought ones in turn, each node below one or two of the last."""
    noted = Noted(graph, folder)
    last = [noted.local(f"top{n}") for n in range(WIDTH)]
    for layer in range(LAYERS):
        names = [f"n{layer}x{n}" for n in range(WIDTH)]
        if layer % 2:
            last = [noted.local(x, last[n], last[n - 1]) for n, x in enumerate(names)]
        else:
            last = [noted.bought(x, last[n]) for n, x in enumerate(names)]


def mapped(graph: JobGraph, folder: Path, rows: int = ROWS) -> None:
    lines = (json.dumps({"n": n, "text": f"row {n}"}) + "\n" for n in range(rows))
    (folder / f"rows{rows}.jsonl").write_text("".join(lines))
    source = graph.data("rows", source=f"rows{rows}.jsonl")
    Noted(graph, folder).local("count", graph.infer("ask", model="m", over=source, prompt="{text}"))


def hundred(graph: JobGraph, folder: Path) -> None:
    mapped(graph, folder, 100)


SHAPES: dict[str, Callable[[JobGraph, Path], None]] = {
    shape.__name__: shape for shape in (chain, fan, layered, mapped, hundred)
}


def graph_of(shape: str, number: int, folder: Path) -> JobGraph:
    """Return a graph of a shape, told apart from others of that shape by its number."""
    graph = JobGraph(f"{shape}-{number}")
    SHAPES[shape](graph, folder)
    return graph
