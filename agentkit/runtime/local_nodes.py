"""Nodes that run on this machine: sources, splits, users' functions."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

from agentkit.artifacts import Artifact, Dataset, Json, Table
from agentkit.errors import StateCorrupt, WrongInput
from agentkit.file_io import read_bytes
from agentkit.graph.callables import guarding
from agentkit.graph.nodes import LocalNode, SourceNode, SplitNode
from agentkit.runtime.function_threads import Threads
from agentkit.tables import MAX_BYTES, read_table


async def source(
    node: SourceNode, folder: Path, read: Callable[[str], Awaitable[bytes]]
) -> Dataset:
    """Bring a table in: a file, or what `read` finds under a URI.

    Raises WrongInput, StoreUnavailable, StateCorrupt (another sha256), MissingExtra.
    """
    if "://" in node.source:
        data = await read(node.source)
    else:
        data = await asyncio.to_thread(read_bytes, folder / node.source, MAX_BYTES)
    if node.sha256 and hashlib.sha256(data).hexdigest() != node.sha256:
        raise StateCorrupt(
            f"{node.source} is not what sha256= pins",
            hint="put back the file that was pinned, or run the graph anew with the new sha256=",
        )
    table = read_table(data, node.source)
    return Dataset.dump(table.rows, table.columns)


def split(node: SplitNode, table: Table) -> tuple[Dataset, Dataset]:
    """Part the rows by a draw that depends on the seed alone."""
    rows = table.rows()
    order = list(range(len(rows)))
    random.Random(node.seed).shuffle(order)  # noqa: S311  # a draw to be repeated, not a secret
    first = set(order[: round(len(rows) * node.at)])
    columns = table.columns
    return (
        Dataset.dump((row for number, row in enumerate(rows) if number in first), columns),
        Dataset.dump((row for number, row in enumerate(rows) if number not in first), columns),
    )


async def call(
    node: LocalNode, fn: Callable[..., Any], inputs: Mapping[str, Artifact], threads: Threads
) -> Artifact:
    """Call a user's function, in a thread unless it is a coroutine function.

    Raises WrongInput when it returns what the node does not promise.
    """
    if _is_async(fn):
        with guarding():
            return _promised(node, await fn(*inputs.values()))
    arguments = list(inputs.values())
    run = threads.call if node.timeout is None else threads.call_alone
    return await run(lambda: _promised(node, fn(*arguments)))


_is_async = lru_cache(maxsize=1024)(iscoroutinefunction)


def _promised(node: LocalNode, value: Any) -> Artifact:
    (promised,) = node.outputs
    if isinstance(value, promised):
        return value
    if promised is Json:
        return Json.dump(value)
    raise WrongInput(
        f"the function of node {node.name!r} returned a {type(value).__name__},"
        f" and its annotation promises a {promised.__name__}"
    )
