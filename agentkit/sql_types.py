"""DuckDB's types for the columns of JSON rows, so that it rounds, renames and loses nothing.

Its own sniffer makes doubles of whole numbers beyond 64 bits, and of whole numbers beside
fractions; it merges columns that differ in case only, and turns a table with a nameless column
into one column of maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentkit.errors import Refused
from agentkit.tables import Columns

DOUBLE_EXACT = 2**53
"""Up to here a double holds every whole number."""

MAX_FIELDS = 200
"""An object with more different keys than this is a map, not a struct."""

_EMPTY_TYPES = {
    "text": "VARCHAR",
    "whole": "BIGINT",
    "number": "DOUBLE",
    "bool": "BOOLEAN",
    "nested": "JSON",
}
_WORDS = {"bool": "true or false", "whole": "a number", "number": "a number", "text": "text"}


@dataclass(slots=True)
class Shape:
    """What was found in one place of all rows."""

    kinds: set[str] = field(default_factory=set)
    least: int = 0
    most: int = 0
    fields: dict[str, Shape] = field(default_factory=dict)
    element: Shape | None = None

    def add(self, value: Any) -> None:
        """Take another value into account."""
        match value:
            case None:
                return
            case bool():
                self.kinds.add("bool")
            case int():
                self.kinds.add("whole")
                self.least, self.most = min(self.least, value), max(self.most, value)
            case float():
                self.kinds.add("number")
            case str():
                self.kinds.add("text")
            case list():
                self.kinds.add("list")
                self.element = self.element or Shape()
                for item in value:
                    self.element.add(item)
            case dict():
                self.kinds.add("object")
                for key, item in value.items():
                    self.fields.setdefault(key, Shape()).add(item)

    @property
    def sql(self) -> str:
        """The type in SQL; `JSON` where values of several types stand side by side."""
        match sorted(self.kinds):
            case []:
                return "VARCHAR"
            case ["bool"]:
                return "BOOLEAN"
            case ["text"]:
                return "VARCHAR"
            case ["whole"]:
                return self._whole()
            case ["number"] | ["number", "whole"]:
                return "DOUBLE"
            case ["list"] if self.element:
                return f"{self.element.sql}[]"
            case ["object"] if self._is_struct():
                named = (f"{quoted(name)} {shape.sql}" for name, shape in self.fields.items())
                return f"STRUCT({', '.join(named)})"
            case _:
                return "JSON"

    def _whole(self) -> str:
        bits = max(self.most, -self.least - 1).bit_length()
        return "BIGINT" if bits < 64 else "HUGEINT"

    def _is_struct(self) -> bool:
        folded = {name.casefold() for name in self.fields}
        return 0 < len(folded) == len(self.fields) <= MAX_FIELDS and "" not in folded

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield the places, below this one, whose numbers SQL could not hold, and why."""
        if max(self.most, -self.least - 1).bit_length() > 127:
            yield "", "holds a whole number of more than 128 bits"
        elif "number" in self.kinds and max(self.most, -self.least) > DOUBLE_EXACT:
            yield "", "holds fractions beside whole numbers that a double would round"
        if self.sql == "JSON" and self.kinds != {"whole"}:
            return  # its text is kept as it is
        for name, shape in self.fields.items():
            yield from ((f".{name}{place}", why) for place, why in shape.faults())
        if self.element:
            yield from ((f"[]{place}", why) for place, why in self.element.faults())


def types_of(table: str, rows: Iterable[Mapping[str, Any]], empty: Columns) -> dict[str, str]:
    """Return each column's type in SQL; `empty` has the columns of a table without rows.

    Raises Refused, naming table, column and row, for what SQL would round or mix up.
    """
    shapes: dict[str, Shape] = {}
    for number, row in enumerate(rows, 1):
        for column, value in row.items():
            shape = shapes.setdefault(column, Shape())
            before = _word(shape)
            shape.add(value)
            if before and _word(shape) != before:
                raise Refused(
                    f"the column {column!r} of {table!r} holds {before} and, in row {number},"
                    f" {_word_of(value)}: make all of it one type, for example text",
                    of_task=True,
                )
    _check_names(table, shapes or empty)
    for column, shape in shapes.items():
        for place, why in shape.faults():
            told = f"{column + place!r} of {table!r} {why}: write its numbers as text"
            raise Refused(told, of_task=True)
    return {c: shape.sql for c, shape in shapes.items()} or {
        column: _EMPTY_TYPES[kind] for column, kind in empty.items()
    }


def plain_types(columns: Columns) -> dict[str, str] | None:
    """Return the SQL types of columns of which only this much is known; None for nested ones."""
    if "nested" in columns.values():
        return None
    return {column: _EMPTY_TYPES[kind] for column, kind in columns.items()}


def _word(shape: Shape) -> str:
    """Return what a column holds so far, in words; "" while nobody knows."""
    words = {_WORDS.get(kind, f"a {kind}") for kind in shape.kinds}
    return " and ".join(sorted(words))


def _word_of(value: Any) -> str:
    shape = Shape()
    shape.add(value)
    return _word(shape)


def _check_names(table: str, columns: Iterable[str]) -> None:
    """Refuse what SQL cannot tell apart: it has no case, and needs a name."""
    seen: dict[str, str] = {}
    for column in columns:
        if not column:
            raise Refused(f"a column of {table!r} has no name: give it one", of_task=True)
        twin = seen.setdefault(column.casefold(), column)
        if twin != column:
            raise Refused(
                f"the columns {twin!r} and {column!r} of {table!r} differ in case only, which SQL"
                " cannot tell apart: give one of them another name",
                of_task=True,
            )


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
