"""Whether a query fits its tables, found out before anything is bought: it is bound, not run.

Binding happens in a child that is ended after a second, on tables without rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentkit.bounded import BoundedChild, OutOfBounds
from agentkit.errors import Refused
from agentkit.kinds.sizes import UNKNOWN_QUERY, BoundQuery
from agentkit.pool import sql
from agentkit.pool.extras import installed

MEMORY_MIB = 64


def bind(query: str, tables: Mapping[str, Mapping[str, str]]) -> BoundQuery:
    """Bind a query to tables, each given by the SQL types of its columns.

    Blocks for some seconds at most.  Where DuckDB is not installed, or the check takes too long,
    nothing is known.
    """
    if not installed("duckdb"):
        return UNKNOWN_QUERY
    request = {"sql": query, "tables": {name: dict(types) for name, types in tables.items()}}
    try:
        answer = _CHECKER.ask(request)
    except OutOfBounds:
        return UNKNOWN_QUERY
    return BoundQuery(**answer)


_CHECKER = BoundedChild("agentkit.planner.queries")


def _bound(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"columns": sql.columns_of(request["sql"], request["tables"], MEMORY_MIB)}
    except Refused as error:
        return {"fault": str(error) if error.of_task else ""}


def main() -> None:
    """Answer {"sql", "tables"} by the fields of `BoundQuery`."""
    import duckdb  # noqa: F401  # before the time of a request counts

    from agentkit.bounded import serve

    serve(_bound)


if __name__ == "__main__":
    main()
