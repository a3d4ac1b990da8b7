"""Splits: part a table in two by a seeded draw."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from agentkit.artifacts import Artifact, Dataset, Table
from agentkit.graph.nodes import SplitNode
from agentkit.kinds.artifact_checks import as_table
from agentkit.kinds.kind import Inputs, LocalKind, Machine
from agentkit.kinds.sizes import EstimateContext, Size, Sizes, size_of
from agentkit.sql_types import plain_types


class Split(LocalKind[SplitNode]):
    """Gives a share `at` of the rows, and the rest; each part keeps the order of the table."""

    node_type = SplitNode

    def sizes(self, node: SplitNode, sizes: Sizes, context: EstimateContext) -> tuple[Size, ...]:
        """Return the share `at` of the rows, and the others."""
        whole = size_of(sizes, node.table)
        first = round(whole.rows * node.at)
        # A part may lack the rows that made a nested type what it is.
        types = None if whole.table is None else plain_types(whole.table)
        return tuple(
            replace(whole, rows=max(1, rows), sql_types=types)
            for rows in (first, whole.rows - first)
        )

    async def run(self, node: SplitNode, inputs: Inputs, machine: Machine) -> tuple[Artifact, ...]:
        return await asyncio.to_thread(_parts, node, as_table(inputs["table"]))


def _parts(node: SplitNode, table: Table) -> tuple[Dataset, Dataset]:
    """Part the rows by a draw that depends on the seed alone."""
    rows = table.rows()
    columns = table.columns
    order = list(range(len(rows)))
    random.Random(node.seed).shuffle(order)  # noqa: S311  # a draw to be repeated, not a secret
    first = set(order[: round(len(rows) * node.at)])
    return (
        Dataset.dump((row for number, row in enumerate(rows) if number in first), columns),
        Dataset.dump((row for number, row in enumerate(rows) if number not in first), columns),
    )
