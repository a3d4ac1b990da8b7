"""How much work each node is, as far as it can be told before any data exists.

Sizes start at the sources (a local file is counted, anything else is assumed) and follow the
edges.  A token is taken as four bytes of text when expected, and as one byte at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from types import MappingProxyType

from agentkit.artifacts import Dataset
from agentkit.errors import Refused, WrongInput
from agentkit.file_io import read_bytes
from agentkit.graph.columns import check_columns, check_training
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import (
    InferNode,
    SourceNode,
    SplitNode,
    SqlNode,
    TrainNode,
)
from agentkit.graph.refs import InputRef
from agentkit.graph.registry import Node
from agentkit.json_schemas import unsupported_in
from agentkit.market.receipt import Receipt
from agentkit.market.task import CPU_MS, Load, TaskSpec, with_cpu
from agentkit.planner.queries import UNKNOWN, Bound, bind
from agentkit.sql_types import plain_types, types_of
from agentkit.tables import MAX_BYTES, Columns, Rows, read_table

BYTES_PER_TOKEN = 4
TEMPLATE_TOKENS = 64
"""The most that a chat template adds to a prompt."""

GUESSED = "sizes assumed, text as four bytes a token"
GUESS = 0.5
"""How far a load that nobody measured may be off, as a share."""

PAID = (InferNode, TrainNode, SqlNode)
"""The nodes that providers do; the others run on this machine."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of an output: `bound` when there cannot be more, `exact` when it was counted.

    `row_bytes` is the longest row's length, `usual_bytes` that of most, 0 when it is the same.
    `columns`: those that every row has, None when nobody knows.  `table`: all columns, and what
    they hold, where they are known; `sql_types`: the types that SQL gives them.  `sql_fault` says
    why SQL cannot hold them, "" where it can; `query_fault` why the query that makes them is wrong.
    """

    rows: int
    row_bytes: int
    bound: bool = False
    exact: bool = False
    columns: frozenset[str] | None = None
    table: Columns | None = None
    sql_types: Mapping[str, str] | None = None
    sql_fault: str = ""
    query_fault: str = ""
    usual_bytes: int = 0

    @property
    def usual(self) -> int:
        return self.usual_bytes or self.row_bytes

    @property
    def bytes(self) -> int:
        """What the whole output is expected to come to."""
        return self.rows * self.usual


@dataclass(frozen=True, slots=True)
class Measured:
    """What a purchase of a node used in an earlier run: units on average, and their spread.

    `spread` is the standard deviation of the largest unit, as a share of it.
    """

    node: Node
    run: str
    units: Mapping[str, float]
    spread: float


def measured_in(run: str, graph: FrozenGraph, receipts: Iterable[Receipt]) -> dict[str, Measured]:
    """Return what the purchases of a run used, by node."""
    used: dict[str, list[Mapping[str, int]]] = {}
    for receipt in receipts:
        if receipt.usage and receipt.attempt.node in graph.by_name:
            used.setdefault(receipt.attempt.node, []).append(receipt.usage)
    return {name: _mean(graph.by_name[name], run, counts) for name, counts in used.items()}


def _mean(node: Node, run: str, counts: list[Mapping[str, int]]) -> Measured:
    units = {unit: fmean(count.get(unit, 0) for count in counts) for unit in counts[0]}
    largest = max(units, key=lambda unit: units[unit] if unit != CPU_MS else -1.0)
    off = pstdev(count.get(largest, 0) for count in counts)
    spread = GUESS / 2 if len(counts) == 1 else off / max(units[largest], 1e-9)
    return Measured(node, run, units, spread)


Sizes = dict[str, tuple[Size, ...]]
"""The sizes of each node's outputs, in order."""

PLAIN = re.compile(
    r'\s*select\s+(\*|[\w"]+(?:\s*,\s*[\w"]+)*)\s+from\s+[\w"]+\s*'
    r"(?:(?:where|order\s+by|limit)\b(?!.*\b(?:union|intersect|except)\b).*)?",
    re.IGNORECASE | re.DOTALL,
)
"""A query whose rows are some of one table's, with some of its columns: no more and no longer."""

ASSUMED = Size(rows=200, row_bytes=512)


def sizes_of(graph: FrozenGraph, folder: Path) -> Sizes:
    """Return the sizes of every node's outputs; relative sources are files in `folder`."""
    sizes: Sizes = {}
    for node in graph.nodes:
        sizes[node.name] = _sizes_of(node, sizes, folder)
    return sizes


def _of(sizes: Sizes, ref: InputRef) -> Size:
    return sizes[ref.node][ref.output]


def _sizes_of(node: Node, sizes: Sizes, folder: Path) -> tuple[Size, ...]:
    match node:
        case SourceNode():
            return (count(folder / node.source) if "://" not in node.source else ASSUMED,)
        case SplitNode():
            whole = _of(sizes, node.table)
            first = round(whole.rows * node.at)
            parts = (first, whole.rows - first)
            # A part may lack the rows that made a nested type what it is.
            types = None if whole.table is None else plain_types(whole.table)
            one, other = (replace(whole, rows=max(1, n), sql_types=types) for n in parts)
            return one, other
        case SqlNode():
            inputs = [_of(sizes, ref) for ref in node.inputs.values()]
            largest = max(inputs, key=lambda size: size.rows, default=ASSUMED)
            bound = largest.bound and len(inputs) == 1 and _is_plain(node.sql)
            query = _bound(node, sizes)
            columns = query.columns
            return (
                replace(
                    largest,
                    bound=bound,
                    exact=False,
                    columns=None if columns is None else frozenset(columns),
                    table=columns,
                    sql_types=None if columns is None else plain_types(columns),
                    sql_fault="",
                    query_fault=query.fault,
                ),
            )
        case InferNode() if node.over:
            over = _of(sizes, node.over)
            answer = BYTES_PER_TOKEN * node.max_tokens
            mapped = replace(
                over,
                rows=min(over.rows, node.max_items),
                row_bytes=over.row_bytes + answer,
                usual_bytes=over.usual + answer // 2,
                columns=over.columns and over.columns | {node.adds},
                table=over.table and {**over.table, node.adds: "nested"},
                sql_types=_with_answers(over, node),
            )
            return (mapped,)
        case InferNode():
            return (Size(1, BYTES_PER_TOKEN * node.max_tokens),)
        case _:
            return (ASSUMED,)


def _bound(node: SqlNode, sizes: Sizes) -> Bound:
    """Return what is known of a query from the columns of its inputs; nothing where one lacks."""
    types = {name: _of(sizes, ref).sql_types for name, ref in node.inputs.items()}
    known = {name: columns for name, columns in types.items() if columns is not None}
    return bind(node.sql, known) if len(known) == len(types) else UNKNOWN


def _with_answers(over: Size, node: InferNode) -> Mapping[str, str] | None:
    """Return the SQL types of a mapped table: its answers are text, or of a type nobody knows."""
    if over.sql_types is None or node.output is not None:
        return None
    return {**over.sql_types, node.adds: "VARCHAR"}


def _is_plain(sql: str) -> bool:
    found = PLAIN.fullmatch(sql)
    names = [name.strip() for name in found[1].split(",")] if found else []
    return bool(names) and len(set(names)) == len(names)


def count(path: Path) -> Size:
    """Count a local file's rows, and the bytes of the longest one as an artifact holds it.

    Raises WrongInput when it is not there or no table.
    """
    table = read_table(read_bytes(path, MAX_BYTES), path.name)
    lengths = [Dataset.dump([row]).size for row in table.rows] or [1]
    in_every_row = frozenset(table.columns).intersection(*table.rows)
    types, fault = _sql_types(path.name, table)
    return Size(
        rows=max(len(table.rows), 1),
        row_bytes=max(lengths),
        bound=True,
        exact=True,
        columns=in_every_row if table.columns else None,
        table=table.columns,
        sql_types=types,
        sql_fault=fault,
        usual_bytes=sum(lengths) // len(lengths),
    )


def _sql_types(name: str, table: Rows) -> tuple[dict[str, str] | None, str]:
    """Return the SQL types of a table's columns, or why there are none."""
    try:
        return types_of(name, table.rows, table.columns), ""
    except Refused as fault:
        return None, str(fault)


def carried(graph: FrozenGraph, sizes: Sizes) -> dict[str, dict[str, int]]:
    """Return the bytes that each node is expected to read of each of its parents."""
    read: dict[str, dict[str, int]] = {}
    for name, wires in graph.wires.items():
        read[name] = {}
        for _, parent, output in wires:
            more = sizes[parent][output].bytes
            read[name][parent] = read[name].get(parent, 0) + more
    return read


def spec_of(
    node: Node, sizes: Sizes, measured: Mapping[str, Measured] = MappingProxyType({})
) -> TaskSpec:
    """Return what providers are asked to price; raises WrongInput for rows that cannot do.

    What an earlier run `measured` of the node comes before what its text and inputs say.
    """
    spec = _guessed(node, sizes)
    known = measured.get(node.name)
    if known is None or known.node != node:
        return spec
    expected = {
        unit: min(spec.load.most[unit], max(1, round(known.units.get(unit, count))))
        for unit, count in spec.load.expected.items()
    }
    load = spec.load.model_copy(update={"expected": expected})
    basis = f"measured in run {known.run}"
    return spec.model_copy(update={"load": load, "basis": basis, "spread": known.spread})


def _guessed(node: Node, sizes: Sizes) -> TaskSpec:
    match node:
        case InferNode():
            return _infer(node, sizes)
        case TrainNode():
            size = _of(sizes, node.dataset)
            if size.columns is not None:
                check_training(node, size.rows, size.columns)
            rows = size.rows * node.epochs
            load = Load(expected={"row": rows}, most={"row": rows if size.bound else 4 * rows})
            return _spec(node, with_cpu("train", load))
        case SqlNode():
            inputs = [_of(sizes, ref) for ref in node.inputs.values()]
            for size in inputs:
                if size.sql_fault:
                    raise WrongInput(f"node {node.name!r}: {size.sql_fault}", hint=_MEND_ROWS)
            (made,) = sizes[node.name]
            if made.query_fault:
                raise WrongInput(
                    f"the query of node {node.name!r} cannot be run: {made.query_fault}",
                    hint=_MEND_QUERY + "; ".join(_described(node, sizes)),
                )
            read = sum(size.rows * size.row_bytes for size in inputs)
            bound = all(size.bound for size in inputs)
            load = Load(expected={"byte": read}, most={"byte": read if bound else 4 * read})
            return _spec(node, with_cpu("data", load))
        case _:
            raise TypeError(f"{node.name} runs on this machine and is not priced")


def _described(node: SqlNode, sizes: Sizes) -> list[str]:
    """Return each table of a query with its columns and their types."""
    tables = []
    for name, ref in node.inputs.items():
        types = _of(sizes, ref).sql_types or {}
        columns = ", ".join(f'"{column}" {kind}' for column, kind in types.items())
        tables.append(f"{name} has {columns or 'no columns'}")
    return tables


_MEND_QUERY = 'mend sql=, and cast where a type is another ("n"::double): '
_MEND_ROWS = "mend the file, or read it with a local node that does"


def _infer(node: InferNode, sizes: Sizes) -> TaskSpec:
    inputs = [_of(sizes, ref) for ref in node.inputs.values()]
    over = _of(sizes, node.over) if node.over else Size(1, 0, bound=True)
    _check_rows(node, over)
    _check_patterns(node)
    columns = max(1, len(node.placeholders() - set(node.inputs)))
    prompt = len(node.prompt.encode())
    most = prompt + sum(size.row_bytes for size in inputs) + over.row_bytes * columns
    usual = prompt + sum(size.usual for size in inputs) + over.usual * columns
    load = infer_load(most, node, slack=1 if over.bound and not inputs else 2, usual=usual)
    items = min(node.max_items, over.rows) if over.bound else node.max_items
    if not node.over:
        items = 1
    likely = min(items, over.rows)
    basis = "rows counted, text as four bytes a token" if over.exact else GUESSED
    return TaskSpec(node=node, load=load, items=items, likely=likely, basis=basis, spread=GUESS)


def _check_rows(node: InferNode, over: Size) -> None:
    """Refuse before anything is bought what the run would find out."""
    check_columns(node, over.table or ())
    if over.exact and over.rows > node.max_items:
        raise WrongInput(
            f"node {node.name!r} maps over {over.rows} rows, and max_items is {node.max_items}",
            hint=f"set max_items={over.rows}, or take fewer rows",
        )
    lacking = node.placeholders() - set(node.inputs) - (over.columns or node.placeholders())
    if over.columns is not None and lacking:
        raise WrongInput(
            f"the prompt of node {node.name!r} names {{{min(lacking)}}}, and not every row has it",
            hint=f"name one of: {', '.join(sorted(over.columns))}",
        )


def _check_patterns(node: InferNode) -> None:
    """Refuse a pattern that providers refuse, because its match can take for ever."""
    unsupported = unsupported_in(node.output) if isinstance(node.output, dict) else ""
    if unsupported:
        raise WrongInput(
            f"the schema of node {node.name!r} cannot be used: {unsupported}",
            hint="say it with enum, minLength or a plain pattern, and the rest in verify=",
        )


def infer_load(text: int, node: InferNode, slack: int = 1, *, usual: int | None = None) -> Load:
    """Return the load of one question of at most `text` bytes, `usual` ones expected.

    `slack` widens an assumed size.
    """
    expected = {"request": 1, "input": (text if usual is None else usual) // BYTES_PER_TOKEN + 1}
    most = {"request": 1, "input": text * slack + TEMPLATE_TOKENS}
    if node.output != "embedding":
        expected["output"] = max(1, node.max_tokens // 2)
        most["output"] = node.max_tokens
    return Load(expected=expected, most=most)


def _spec(node: Node, load: Load) -> TaskSpec:
    return TaskSpec(node=node, load=load, basis=GUESSED, spread=GUESS)
