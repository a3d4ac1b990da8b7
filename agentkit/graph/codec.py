"""Graphs as TOML, JSON and Mermaid: the same document written down."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from agentkit.errors import GraphError, WrongInput
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import Name, Node, SourceNode, SplitNode, SqlNode


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    nodes: list[Node]


def decode(document: Any) -> FrozenGraph:
    """Build a graph from its document (plain dicts and lists); raises GraphError."""
    try:
        read = _Document.model_validate(document)
    except ValidationError as wrong:
        raise as_wrong_input("the graph", wrong, document) from wrong
    return FrozenGraph.build(read.name, tuple(read.nodes))


def encode(graph: FrozenGraph) -> dict[str, Any]:
    """Return the document of a graph, values that are defaults left out."""
    return graph.model_dump(mode="json", exclude_defaults=True)


def load(path: Path) -> FrozenGraph:
    """Read a `.toml` or `.json` graph; raises GraphError with the file's name."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError as wrong:
        raise GraphError(f"there is no file {path}", hint="check the path") from wrong
    except (OSError, ValueError) as wrong:
        raise GraphError(
            f"{path} cannot be read as {path.suffix or 'JSON'}: {wrong}",
            hint="write a graph to a file with graph.save('graph.toml') to see its shape",
        ) from wrong
    return decode(document)


def save(graph: FrozenGraph, path: Path) -> None:
    """Write a graph as `.toml` or `.json`, chosen by the suffix."""
    if path.suffix == ".toml":
        document = encode(graph)
        # TOML reads a carriage return in a multi-line string as the end of a line.
        readable = "\\r" not in json.dumps(document)
        text = tomli_w.dumps(document, multiline_strings=readable)
        path.write_text(text, encoding="utf-8", newline="\n")
    else:
        path.write_text(json.dumps(encode(graph), indent=2, ensure_ascii=False) + "\n", "utf-8")


def to_mermaid(graph: FrozenGraph) -> str:
    """Return a Mermaid flowchart; node ids are positions, so that any name is safe."""
    number = {node.name: index for index, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    lines += [f'  n{number[node.name]}["{node.name}<br/>{_label(node)}"]' for node in graph.nodes]
    for node in graph.nodes:
        lines += [
            f"  n{number[name]} --> n{number[node.name]}" for name in graph.parents[node.name]
        ]
    return "\n".join(lines) + "\n"


def _label(node: Node) -> str:
    return node.op if isinstance(node, SourceNode | SqlNode | SplitNode) else node.kind


def as_wrong_input(what: str, error: ValidationError, document: Any = None) -> WrongInput:
    """Return our error for pydantic's, naming the first field at fault; unknown keys before all."""
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    loc = [str(part) for part in first["loc"]]
    if len(loc) > 1 and loc[0] == "nodes":
        what = f"node {_name_of(document, int(loc[1]))!r}"
        loc = [part for part in loc[2:] if part not in _TAGS]
    where, message = ".".join(loc), _SAID.get(first["type"], first["msg"])
    return WrongInput(
        f"{what}: {f'{where}: ' if where else ''}{message}",
        hint=_HINTS.get(first["type"]) or (f"mend {where!r}" if where else _SHAPE),
    )


_TAGS = ("infer", "train", "data", "local", "source", "sql", "split")
_SHAPE = "write a graph to a file with graph.save('graph.toml') to see its shape"
_SAID = {
    "extra_forbidden": "this key is not known here",
    "union_tag_not_found": "it does not say which",
    "union_tag_invalid": "there is no such kind of node",
    "missing": "it is missing",
}
_HINTS = {
    "union_tag_not_found": 'write kind = "infer", "train", "data" or "local"; and for data'
    ' op = "source", "sql" or "split"',
    "union_tag_invalid": 'write kind = "infer", "train", "data" or "local"',
    "model_type": 'write a ref as { node = "name" }',
}


def _name_of(document: Any, number: int) -> str:
    try:
        return str(document["nodes"][number]["name"])
    except (KeyError, TypeError, IndexError):
        return f"number {number + 1}"
