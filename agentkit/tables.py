"""Tables as people have them: JSON Lines, JSON, CSV and TSV, also in gzip.

Nothing is rounded, renamed or lost in silence.  What cannot be read as it stands is refused, and
the message names the file, the row and the column.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

from agentkit import strict_json
from agentkit.errors import WrongInput
from agentkit.strict_json import BadJson

MAX_BYTES = 256 << 20
"""The largest table, also after it was unpacked."""

MAX_COLUMNS = 10_000

MAX_ROWS = 10_000_000
"""The size of a file alone bounds too little: a row of two bytes takes 200 bytes of memory."""

MAX_MISSING = 10_000_000
"""How many fields a CSV's short rows may lack in all: each of them takes memory as null."""

ColumnType = Literal["text", "whole", "number", "bool", "nested"]
"""What a column holds; `nested` is a list, an object, or more than one of the others."""

Columns = Mapping[str, ColumnType]
"""The columns of a table, in the order in which they first appear."""

INDEX = "index"
"""The name of a CSV's first column where it has none: pandas writes the index of a frame so."""

_DELIMITERS = ",;\t|"
_UNREAD = {
    ".parquet": "convert it, for example: duckdb -c \"copy (from 'FILE') to 'rows.jsonl'\"",
    ".xlsx": "save it as CSV in the spreadsheet program",
    ".xls": "save it as CSV in the spreadsheet program",
    ".ods": "save it as CSV in the spreadsheet program",
    ".arrow": "write it as JSON Lines with pyarrow or pandas",
    ".feather": "write it as JSON Lines with pyarrow or pandas",
    ".orc": "write it as JSON Lines with pyarrow or pandas",
    ".avro": "write it as JSON Lines",
    ".zip": "unpack it first",
    ".tar": "unpack it first",
    ".tgz": "unpack it first",
    ".bz2": "unpack it first, or pack it with gzip",
    ".xz": "unpack it first, or pack it with gzip",
    ".zst": "unpack it first, or pack it with gzip",
}
"""Formats that people have and that are not read here, and what to do instead."""

csv.field_size_limit(MAX_BYTES)  # the module's own limit of 131,072 is a hint for streams


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table, and its columns, which are known also where there are no rows."""

    rows: Sequence[dict[str, Any]]
    columns: Columns


def read_rows(data: bytes, name: str) -> list[dict[str, Any]]:
    """Return the rows of a table; see `read_table`."""
    return list(read_table(data, name).rows)


def read_table(data: bytes, name: str) -> Rows:
    """Return a table; the name's suffix tells its format, JSON Lines where it is none we know.

    A CSV's delimiter is the first of `,` `;` tab `|` in its head, and all of its columns are text.
    Raises WrongInput.
    """
    suffixes = name.lower().split("/")[-1].split("?")[0]
    if suffixes.endswith(".gz"):
        suffixes = suffixes.removesuffix(".gz")
        data = _unpacked(data, name)
    for suffix, instead in _UNREAD.items():
        if suffixes.endswith(suffix):
            raise WrongInput(f"{name}: {suffix} files are not read here", hint=instead)
    text = _decoded(data, name)
    if suffixes.endswith(".csv"):
        return _read_csv(text, name, delimiter="")
    if suffixes.endswith((".tsv", ".tab")):
        return _read_csv(text, name, delimiter="\t")
    read = _read_json if suffixes.endswith(".json") else _read_lines
    rows = read(text, name)
    return Rows(rows, columns_of(rows))


# -- bytes to text -------------------------------------------------------------------------------


def _unpacked(data: bytes, name: str) -> bytes:
    """Unpack gzip, but never to more than a table may have."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            unpacked = packed.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise WrongInput(f"{name} is not whole gzip: {error}", hint="pack it again") from error
    if len(unpacked) > MAX_BYTES:
        raise WrongInput(
            f"{name} unpacks to more than {MAX_BYTES >> 20} MiB", hint="give a part of it"
        )
    return unpacked


def _decoded(data: bytes, name: str) -> str:
    """Decode UTF-8, or UTF-16 where a byte order mark says so."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise WrongInput(
            f"{name}, line {row}: byte 0x{data[error.start]:02x} is not {encoding[:6].upper()}",
            hint=f"convert it, for example: iconv -f latin1 -t utf-8 {name}",
        ) from error


# -- JSON ----------------------------------------------------------------------------------------


def _read_lines(text: str, name: str) -> list[dict[str, Any]]:
    """Read JSON Lines; raises WrongInput with the number of a bad line."""
    rows = []
    # Only \n ends a line: str.splitlines would also split at U+2028 and others inside of strings.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = strict_json.loads(line)
        except BadJson as error:
            raise WrongInput(
                f"{name}, line {number}: {error}",
                hint="give JSON Lines (.jsonl), a JSON list (.json) or CSV (.csv, .tsv)",
            ) from error
        rows.append(_object(row, f"{name}, line {number}"))
        if len(rows) > MAX_ROWS:
            raise _too_many_rows(name)
    return rows


def _read_json(text: str, name: str) -> list[dict[str, Any]]:
    """Read a JSON list of objects; raises WrongInput with the number of a bad row."""
    try:
        rows = strict_json.loads(text)
    except BadJson as error:
        raise WrongInput(
            f"{name}: {error}", hint="give one JSON list, or JSON Lines with the suffix .jsonl"
        ) from error
    if not isinstance(rows, list):
        raise WrongInput(f"{name} is not a list of objects", hint="write [{...}, {...}]")
    if len(rows) > MAX_ROWS:
        raise _too_many_rows(name)
    return [_object(row, f"{name}, row {number}") for number, row in enumerate(rows, 1)]


def _too_many_rows(name: str) -> WrongInput:
    return WrongInput(f"{name} has more than {MAX_ROWS:,} rows", hint="give a part of it")


def _object(row: object, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise WrongInput(f"{place} is not an object", hint='write each row like {"text": "..."}')
    return row


# -- CSV -----------------------------------------------------------------------------------------


def _read_csv(text: str, name: str, *, delimiter: str) -> Rows:
    """Read a CSV whose first row names its columns; every value is text."""
    head, _, _ = text.partition("\n")
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter or _delimiter(head), strict=True
    )
    try:
        columns = _named(next(reader, []), name)
        rows: list[dict[str, Any]] = []
        missing = 0
        for cells in filter(None, reader):
            place = f"{name}, line {reader.line_num}"
            missing += len(columns) - len(cells)
            if missing > MAX_MISSING:
                raise WrongInput(
                    f"{place}: the rows so far lack more than {MAX_MISSING:,} fields",
                    hint="write a field for every column, or leave empty columns out",
                )
            if len(rows) == MAX_ROWS:
                raise _too_many_rows(name)
            rows.append(_filled(columns, cells, place))
    except csv.Error as error:
        raise WrongInput(
            f"{name}, line {reader.line_num}: {error}", hint="check the quotes around that row"
        ) from error
    return Rows(rows, dict.fromkeys(columns, "text"))


def _delimiter(head: str) -> str:
    """Return the first delimiter in the head; one inside of quotes belongs to a column's name."""
    outside = "".join(head.split('"')[::2])
    return next((character for character in outside if character in _DELIMITERS), ",")


def _named(head: list[str], name: str) -> list[str]:
    """Return the names of a CSV's columns; raises WrongInput for one that has none, or twins."""
    columns = [INDEX if not number and not column else column for number, column in enumerate(head)]
    twins = [column for column, count in Counter(columns).items() if count > 1 and column]
    if twins:
        raise WrongInput(
            f"{name}: two columns are called {twins[0]!r}",
            hint="give every column a name of its own",
        )
    if "" in columns:
        raise WrongInput(
            f"{name}: column {columns.index('') + 1} has no name",
            hint="give every column a name in the first row",
        )
    if len(columns) > MAX_COLUMNS:
        raise WrongInput(f"{name} has more than {MAX_COLUMNS:,} columns", hint="take some of them")
    return columns


def _filled(columns: list[str], cells: list[str], place: str) -> dict[str, Any]:
    """Return a row by column; the ones that a short row lacks are null."""
    if len(cells) > len(columns):
        raise WrongInput(
            f"{place} has {len(cells)} fields, and there are {len(columns)} columns",
            hint="quote fields that hold the delimiter, or name all columns in the first row",
        )
    missing = [None] * (len(columns) - len(cells))
    return dict(zip(columns, [*cells, *missing], strict=True))


# -- columns -------------------------------------------------------------------------------------


def columns_of(rows: Iterable[Mapping[str, Any]]) -> Columns:
    """Return the columns of rows; one in which every value is null counts as text."""
    found: dict[str, ColumnType | None] = {}
    for row in rows:
        for column, value in row.items():
            if column not in found:
                found[column] = None
            if value is not None:
                found[column] = _merged(found[column], _type_of(value))
    return {column: kind or "text" for column, kind in found.items()}


def _type_of(value: Any) -> ColumnType:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "whole"
    if isinstance(value, float):
        return "number"
    return "text" if isinstance(value, str) else "nested"


def _merged(one: ColumnType | None, other: ColumnType) -> ColumnType:
    if one is None or one == other:
        return other
    return "number" if {one, other} == {"whole", "number"} else "nested"


def encode_columns(columns: Columns) -> str:
    """Return columns as the parameter of a media type that tells them where there are no rows."""
    return f'columns="{urlencode(dict(columns))}"'


def decode_columns(media_type: str) -> Columns:
    """Return the columns that a media type tells, none for anything else.

    It may come from anybody: unknown types count as `nested`.
    """
    _, found, quoted = media_type.partition('columns="')
    if not found:
        return {}
    try:
        pairs = parse_qsl(quoted.rstrip('"'), keep_blank_values=True, max_num_fields=MAX_COLUMNS)
    except ValueError:
        return {}
    return {column: kind if kind in _TYPES else "nested" for column, kind in pairs}  # type: ignore[misc]


_TYPES = ("text", "whole", "number", "bool", "nested")
