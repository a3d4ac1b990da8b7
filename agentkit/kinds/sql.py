"""Queries: select from tables by SQL; each input is a table of the same name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agentkit.artifacts import Artifact
from agentkit.errors import WrongInput
from agentkit.graph.nodes import SqlNode
from agentkit.kinds.artifact_checks import unreadable_output
from agentkit.kinds.kind import BoughtKind, Inputs, guessed_spec
from agentkit.kinds.sizes import (
    ASSUMED,
    UNKNOWN_QUERY,
    BoundQuery,
    EstimateContext,
    Size,
    Sizes,
    size_of,
)
from agentkit.market.task import Load, Task, TaskSpec, with_cpu
from agentkit.sql_types import plain_types

CPU_SHARE = 10
"""The processor time that is declared at most, by that which is expected."""

CPU_MS_AT_LEAST = 60_000
"""What a query may use at least: how long one takes cannot be told beforehand."""

PLAIN_QUERY = re.compile(
    r'\s*select\s+(\*|[\w"]+(?:\s*,\s*[\w"]+)*)\s+from\s+[\w"]+\s*'
    r"(?:(?:where|order\s+by|limit)\b(?!.*\b(?:union|intersect|except)\b).*)?",
    re.IGNORECASE | re.DOTALL,
)
"""A query whose rows are some of one table's, with some of its columns: no more and no longer."""


class Sql(BoughtKind[SqlNode]):
    """Runs in one purchase; the load is the bytes of the tables."""

    node_type = SqlNode

    # -- planning --------------------------------------------------------------------------------

    def sizes(self, node: SqlNode, sizes: Sizes, context: EstimateContext) -> tuple[Size, ...]:
        """Return the size of the largest table, with the columns that the query gives."""
        inputs = _inputs_of(node, sizes)
        largest = max(inputs, key=lambda size: size.rows, default=ASSUMED)
        query = _bound(node, sizes, context)
        columns = query.columns
        made = replace(
            largest,
            bound=largest.bound and len(inputs) == 1 and _is_plain(node.sql),
            exact=False,
            columns=None if columns is None else frozenset(columns),
            table=columns,
            sql_types=None if columns is None else plain_types(columns),
            sql_fault="",
            query_fault=query.fault,
        )
        return (made,)

    def spec(self, node: SqlNode, sizes: Sizes) -> TaskSpec:
        """Return the spec; raises WrongInput for rows or a query that SQL cannot do."""
        inputs = _inputs_of(node, sizes)
        for size in inputs:
            if size.sql_fault:
                raise WrongInput(
                    f"node {node.name!r}: {size.sql_fault}",
                    hint="mend the file, or read it with a local node that does",
                )
        (made,) = sizes[node.name]
        if made.query_fault:
            raise WrongInput(
                f"the query of node {node.name!r} cannot be run: {made.query_fault}",
                hint='mend sql=, and cast where a type is another ("n"::double): '
                + "; ".join(_described(node, sizes)),
            )
        read = sum(size.rows * size.row_bytes for size in inputs)
        most = read if all(size.bound for size in inputs) else 4 * read
        return guessed_spec(node, self.with_cpu(Load(expected={"byte": read}, most={"byte": most})))

    def with_cpu(self, load: Load) -> Load:
        return with_cpu(load, share=CPU_SHARE, at_least=CPU_MS_AT_LEAST)

    def question(self, node: SqlNode) -> dict[str, Any]:
        return {"op": "sql"}

    # -- buying ----------------------------------------------------------------------------------

    def task(self, node: SqlNode, inputs: Inputs, item: Any = None) -> Task:
        size = sum(artifact.size for artifact in inputs.values())
        load = self.with_cpu(Load(expected={"byte": size}, most={"byte": size}))
        return Task("data", {"op": "sql", "sql": node.sql}, load, dict(inputs))

    def fault_in(self, node: SqlNode, outputs: Sequence[Artifact]) -> str:
        return unreadable_output(outputs)  # an empty one is fine: a query may well find nothing


def _inputs_of(node: SqlNode, sizes: Sizes) -> list[Size]:
    return [size_of(sizes, ref) for ref in node.inputs.values()]


def _bound(node: SqlNode, sizes: Sizes, context: EstimateContext) -> BoundQuery:
    """Return what is known of a query from the columns of its inputs; nothing where one lacks."""
    types = {name: size_of(sizes, ref).sql_types for name, ref in node.inputs.items()}
    known = {name: columns for name, columns in types.items() if columns is not None}
    return context.bind(node.sql, known) if len(known) == len(types) else UNKNOWN_QUERY


def _is_plain(sql: str) -> bool:
    match = PLAIN_QUERY.fullmatch(sql)
    names = [name.strip() for name in match[1].split(",")] if match else []
    return bool(names) and len(set(names)) == len(names)


def _described(node: SqlNode, sizes: Sizes) -> list[str]:
    """Return each table of a query with its columns and their types."""
    tables = []
    for name, ref in node.inputs.items():
        types = size_of(sizes, ref).sql_types or {}
        columns = ", ".join(f'"{column}" {kind}' for column, kind in types.items())
        tables.append(f"{name} has {columns or 'no columns'}")
    return tables
