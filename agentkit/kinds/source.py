"""Sources: bring a table in from a file or a URI, pinned by its sha256 if that is given."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from agentkit.artifacts import Artifact, Dataset
from agentkit.errors import Refused, StateCorrupt
from agentkit.file_io import read_bytes
from agentkit.graph.nodes import SourceNode
from agentkit.kinds.kind import Inputs, LocalKind, Machine
from agentkit.kinds.sizes import ASSUMED, EstimateContext, Size, Sizes
from agentkit.sql_types import types_of
from agentkit.tables import MAX_BYTES, Rows, read_table


class Source(LocalKind[SourceNode]):
    """Reads a table on this machine.  A file is counted while a plan is made, a URI is not read."""

    node_type = SourceNode
    can_be_mended = True

    def sizes(self, node: SourceNode, sizes: Sizes, context: EstimateContext) -> tuple[Size, ...]:
        return (ASSUMED if _is_uri(node) else _counted(context.folder / node.source),)

    def file_to_mend(self, node: SourceNode) -> str:
        return node.source

    async def run(self, node: SourceNode, inputs: Inputs, machine: Machine) -> tuple[Artifact, ...]:
        """Return the table; raises WrongInput, StoreUnavailable, StateCorrupt (another sha256)."""
        if _is_uri(node):
            data = await machine.read(node.source)
        else:
            data = await asyncio.to_thread(read_bytes, machine.folder / node.source, MAX_BYTES)
        if node.sha256 and hashlib.sha256(data).hexdigest() != node.sha256:
            raise StateCorrupt(
                f"{node.source} is not what sha256= pins",
                hint="put back the file that was pinned, or run the graph anew with the new"
                " sha256=",
            )
        table = read_table(data, node.source)
        return (Dataset.dump(table.rows, table.columns),)


def _is_uri(node: SourceNode) -> bool:
    return "://" in node.source


def _counted(path: Path) -> Size:
    """Count a local file's rows, and the bytes of the longest one as an artifact holds it.

    Raises WrongInput when it is not there or no table.
    """
    table = read_table(read_bytes(path, MAX_BYTES), path.name)
    lengths = [Dataset.dump([row]).size for row in table.rows] or [1]
    in_every_row = frozenset(table.columns).intersection(*table.rows)
    sql_types, sql_fault = _sql_types(path.name, table)
    return Size(
        rows=max(len(table.rows), 1),
        row_bytes=max(lengths),
        bound=True,
        exact=True,
        columns=in_every_row if table.columns else None,
        table=table.columns,
        sql_types=sql_types,
        sql_fault=sql_fault,
        usual_bytes=sum(lengths) // len(lengths),
    )


def _sql_types(name: str, table: Rows) -> tuple[dict[str, str] | None, str]:
    """Return the SQL types of a table's columns, or why there are none."""
    try:
        return types_of(name, table.rows, table.columns), ""
    except Refused as fault:
        return None, str(fault)
