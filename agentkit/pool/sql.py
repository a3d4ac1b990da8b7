"""Runs one SELECT over JSON Lines tables in DuckDB, without access to files, network or settings.

The query is a stranger's.  So the tables are loaded first, then external access is switched off
and the settings are locked, and only then is the query parsed.  DuckDB may still write to the
task's own folder, where it puts what does not fit in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit import strict_json
from agentkit.artifacts import Dataset
from agentkit.errors import Refused, brief
from agentkit.sql_types import quoted, types_of
from agentkit.tables import Columns, ColumnType

if TYPE_CHECKING:
    import duckdb

_MOST_BYTES = 256 << 20
_ROWS_AT_ONCE = 2048
_COLUMN_TYPES: Mapping[str, ColumnType] = {
    "boolean": "bool",
    "tinyint": "whole",
    "smallint": "whole",
    "integer": "whole",
    "bigint": "whole",
    "hugeint": "whole",
    "utinyint": "whole",
    "usmallint": "whole",
    "uinteger": "whole",
    "ubigint": "whole",
    "uhugeint": "whole",
    "float": "number",
    "double": "number",
    "decimal": "number",
    "list": "nested",
    "array": "nested",
    "struct": "nested",
    "map": "nested",
    "union": "nested",
    "json": "nested",
}
"""The JSON type of each DuckDB type; all other types become text."""


def query(
    *,
    sql: str,
    tables: dict[str, str],
    folder: str,
    memory_mib: int,
    out: str,
    empty: dict[str, Columns] | None = None,
) -> dict[str, Any]:
    """Run one SELECT over `tables` (paths of JSON Lines files by name) and write its rows to `out`.

    `empty` has the columns of tables without rows.  Returns the number of rows and the columns of
    the result.  Dates, times, intervals, UUIDs and blobs become text, decimals become numbers, NaN
    and infinity become null.  Raises Refused with the first line of DuckDB's error, and for numbers
    that JSON would round.
    """
    import duckdb

    try:
        with _open_database(folder, memory_mib) as db:
            for name, path in tables.items():
                _load(db, name, path, (empty or {}).get(name, {}))
            _lock(db)
            _define(db, sql)
            return {"rows": _write(db, Path(out)), "columns": _columns(db)}
    except duckdb.Error as error:
        of_task = isinstance(error, _task_errors())
        message = brief(str(error).replace(folder, ""))  # the payer need not know our paths
        raise Refused(f"DuckDB: {message}", of_task=of_task) from None


def columns_of(
    sql: str, tables: Mapping[str, Mapping[str, str]], memory_mib: int
) -> dict[str, ColumnType]:
    """Return the columns of a SELECT's result, from the SQL types of its tables' columns.

    The query is only checked and not run.  Raises Refused as `query` does.
    """
    import duckdb

    try:
        with _open_database("", memory_mib) as db:
            for name, types in tables.items():
                _create(db, name, types)
            _lock(db)
            _define(db, sql)
            return _columns(db)
    except duckdb.Error as error:
        raise Refused(
            f"DuckDB: {brief(str(error))}", of_task=isinstance(error, _task_errors())
        ) from None


def _create(db: duckdb.DuckDBPyConnection, name: str, types: Mapping[str, str]) -> None:
    """Create a table without rows."""
    columns = ", ".join(f"{quoted(column)} {kind}" for column, kind in types.items())
    db.execute(f"create table {quoted(name)} ({columns or 'json JSON'})")  # a table needs a column


def _task_errors() -> tuple[type[Exception], ...]:
    """Return DuckDB's errors for a bad query or bad rows, which fail on every machine alike."""
    import duckdb

    return (
        duckdb.ProgrammingError,
        duckdb.DataError,
        duckdb.NotSupportedError,
        duckdb.PermissionException,
    )


def _open_database(folder: str, memory_mib: int) -> duckdb.DuckDBPyConnection:
    """Open an empty database in memory; `folder` takes what does not fit there."""
    import duckdb

    settings: dict[str, Any] = {
        "threads": 1,  # so that the rows of a query without ORDER BY always come in one order
        "memory_limit": f"{memory_mib}MiB",
        "temp_directory": folder,
        "max_temp_directory_size": "1GiB",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allow_persistent_secrets": False,
        "python_enable_replacements": False,  # else a table's name could be a Python variable's
    }
    return duckdb.connect(config=settings)


def _load(db: duckdb.DuckDBPyConnection, name: str, path: str, empty: Columns) -> None:
    """Load a file into a table; text stays text even if it looks like a date or a UUID."""
    columns = types_of(name, _rows_of(name, path), empty)
    if columns:
        db.read_json(path, format="newline_delimited", columns=columns).create(quoted(name))
    else:
        _create(db, name, {})


def _rows_of(name: str, path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON Lines file; raises Refused with the number of a bad one."""
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = strict_json.loads(line.strip())
            except strict_json.BadJson as error:
                raise Refused(
                    f"row {number} of {name!r} is not JSON: {error}", of_task=True
                ) from None
            if not isinstance(row, dict):
                raise Refused(f"row {number} of {name!r} is not an object", of_task=True)
            yield row


def _lock(db: duckdb.DuckDBPyConnection) -> None:
    """Fix what could differ between machines, then forbid external access and further settings."""
    db.execute("set TimeZone='UTC'")
    db.execute("select setseed(0)")
    db.execute("set enable_external_access=false")
    db.execute("set lock_configuration=true")


def _define(db: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Create a view of the query; raises Refused for anything but one SELECT.

    A view is also a second safeguard: its definition cannot contain another statement.
    """
    import duckdb

    statements = db.extract_statements(sql)
    if len(statements) != 1:
        raise Refused(
            f"one SELECT is run at a time, and this is {len(statements)} statements", of_task=True
        )
    if statements[0].type != duckdb.StatementType.SELECT:
        raise Refused(f"only SELECT is run here, not {statements[0].type.name}", of_task=True)
    db.execute(f'create temp view "the result" as {statements[0].query}')


def _write(db: duckdb.DuckDBPyConnection, out: Path) -> int:
    """Write the result as JSON Lines and return its number of rows; raises Refused if too large."""
    row_count = 0
    result = db.execute('select to_json("the result")::varchar from "the result"')
    with out.open("wb") as file:
        while batch := result.fetchmany(_ROWS_AT_ONCE):
            row_count += len(batch)
            file.write(Dataset.dump(map(_read_row, batch)).read())
            if file.tell() > _MOST_BYTES:
                raise Refused(f"the result is larger than {_MOST_BYTES >> 20} MiB")
    return row_count


def _read_row(fetched: tuple[str]) -> Mapping[str, Any]:
    """Return a row from its JSON; NaN and infinity become null."""
    row: dict[str, Any] = json.loads(
        fetched[0], parse_constant=lambda _: None, parse_float=_exact_number
    )
    return row


def _exact_number(digits: str) -> float | None:
    """Return a number with a fraction; raises Refused if a double cannot represent it."""
    number = float(digits)
    if Decimal(repr(number)) != Decimal(digits):
        raise Refused(
            f"the result holds {digits}, which JSON's numbers would round: cast it to double to"
            " round it, or to varchar to keep it",
            of_task=True,
        )
    return number


def _columns(db: duckdb.DuckDBPyConnection) -> dict[str, ColumnType]:
    """Return the columns of the result with their JSON types."""
    result = db.table("the result")
    kinds = ["json" if str(kind) == "JSON" else str(kind.id) for kind in result.types]
    types: list[ColumnType] = [_COLUMN_TYPES.get(kind, "text") for kind in kinds]
    return dict(zip(result.columns, types, strict=True))
