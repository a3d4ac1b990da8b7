"""How much work each node is, as far as it can be told before any data exists.

Sizes start at the sources (a local file is counted, anything else is assumed) and follow the
edges.  A token is taken as four bytes of text when expected, and as one byte at most.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from agentkit.artifacts import Dataset, read_rows
from agentkit.errors import WrongInput
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import (
    InferNode,
    LocalNode,
    Node,
    SourceNode,
    SplitNode,
    SqlNode,
    TrainNode,
)
from agentkit.market.task import Load, TaskSpec

BYTES_PER_TOKEN = 4
TEMPLATE_TOKENS = 64
"""The most that a chat template adds to a prompt."""

PAID = (InferNode, TrainNode, SqlNode)
"""The nodes that providers do; the others run on this machine."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of what a node produces; `exact` when it was counted, not assumed."""

    rows: int
    row_bytes: int
    exact: bool = False


GROWING = re.compile(
    r"\b(join|union|unnest|values|recursive|generate_series|range|repeat|concat|list)\b|,\s*\w+\s*\(",
    re.IGNORECASE,
)
"""What a query says when its result may have more or longer rows than what it reads."""

ASSUMED = Size(rows=200, row_bytes=512)


def sizes_of(graph: FrozenGraph, folder: Path) -> dict[str, Size]:
    """Return the size of every node's output; relative sources are files in `folder`."""
    sizes: dict[str, Size] = {}
    for node in graph.nodes:
        sizes[node.name] = _size_of(node, sizes, folder)
    return sizes


def _size_of(node: Node, sizes: dict[str, Size], folder: Path) -> Size:
    match node:
        case SourceNode():
            return count(folder / node.source) if "://" not in node.source else ASSUMED
        case SplitNode():
            return sizes[node.table.node]
        case SqlNode():
            inputs = [sizes[ref.node] for ref in node.inputs.values()]
            largest = max(inputs, key=lambda size: size.rows, default=ASSUMED)
            grows = len(inputs) > 1 or GROWING.search(node.sql)
            return replace(largest, exact=False) if grows else largest
        case InferNode() if node.over:
            over = sizes[node.over.node]
            grown = over.row_bytes + BYTES_PER_TOKEN * node.max_tokens
            return Size(min(over.rows, node.max_items), grown, over.exact)
        case InferNode():
            return Size(1, BYTES_PER_TOKEN * node.max_tokens)
        case _:
            return ASSUMED


def count(path: Path) -> Size:
    """Count a local file's rows, and the bytes of the longest one as an artifact holds it.

    Raises WrongInput when it is not there or no table.
    """
    try:
        data = path.read_bytes()
    except OSError as wrong:
        raise WrongInput(
            f"{path} cannot be read: {wrong.strerror}",
            hint="give source= a path that exists, or a URI",
        ) from wrong
    lines = Dataset.dump(read_rows(data, path.name)).read().splitlines()
    return Size(max(len(lines), 1), max(map(len, lines), default=0) + 1, exact=True)


def spec_of(node: Node, sizes: dict[str, Size]) -> TaskSpec:
    """Return what providers are asked to price."""
    match node:
        case InferNode():
            return _infer(node, sizes)
        case TrainNode():
            size = sizes[node.dataset.node]
            rows = size.rows * node.epochs
            return _spec(node, {"row": rows}, {"row": rows if size.exact else 4 * rows})
        case SqlNode():
            inputs = [sizes[ref.node] for ref in node.inputs.values()]
            read = sum(size.rows * size.row_bytes for size in inputs)
            exact = all(size.exact for size in inputs)
            return _spec(node, {"byte": read}, {"byte": read if exact else 4 * read})
        case SourceNode() | SplitNode() | LocalNode():
            raise TypeError(f"{node.name} runs on this machine and is not priced")


def _infer(node: InferNode, sizes: dict[str, Size]) -> TaskSpec:
    read = [sizes[ref.node].row_bytes for ref in node.inputs.values()]
    over = sizes[node.over.node] if node.over else Size(1, 0, exact=True)
    columns = max(1, len(node.placeholders() - set(node.inputs)))
    text = len(node.prompt.encode()) + sum(read) + over.row_bytes * columns
    load = infer_load(text, node, slack=1 if over.exact and not read else 2)
    items = min(node.max_items, over.rows) if over.exact else node.max_items
    if not node.over:
        items = 1
    return TaskSpec(node=node, load=load, items=items, likely=min(items, over.rows))


def infer_load(text: int, node: InferNode, slack: int = 1) -> Load:
    """Return the load of one question of `text` bytes; `slack` widens an assumed size."""
    expected = {"request": 1, "input": text // BYTES_PER_TOKEN + 1}
    most = {"request": 1, "input": text * slack + TEMPLATE_TOKENS}
    if node.output != "embedding":
        expected["output"] = max(1, node.max_tokens // 2)
        most["output"] = node.max_tokens
    return Load(expected=expected, most=most)


def _spec(node: Node, expected: dict[str, int], most: dict[str, int]) -> TaskSpec:
    return TaskSpec(node=node, load=Load(expected=expected, most=most))
