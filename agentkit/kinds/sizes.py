"""How large the outputs of nodes are, as far as it can be told before any data exists.

Sizes start at the sources (a local file is counted, anything else is assumed) and follow the edges:
each kind derives the sizes of its outputs from those of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from agentkit.tables import Columns

if TYPE_CHECKING:  # the child that binds queries imports this module, and nothing of pydantic
    from agentkit.graph.refs import InputRef

BYTES_PER_TOKEN = 4
"""A token is taken as four bytes of text when expected, and as one byte at most."""

TEMPLATE_TOKENS = 64
"""The most that a chat template adds to a prompt."""

GUESSED = "sizes assumed, text as four bytes a token"
"""The basis of a load that nothing was counted for."""

GUESS = 0.5
"""How far a load that nobody measured may be off, as a share."""


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
        """The length of most rows, in bytes."""
        return self.usual_bytes or self.row_bytes

    @property
    def bytes(self) -> int:
        """What the whole output is expected to come to."""
        return self.rows * self.usual


ASSUMED = Size(rows=200, row_bytes=512)
"""The size of an output of which nothing is known."""

Sizes: TypeAlias = Mapping[str, tuple[Size, ...]]
"""The sizes of the outputs of nodes, by the node's name and in order."""


def size_of(sizes: Sizes, ref: InputRef) -> Size:
    """Return the size of the output that an edge leads from."""
    return sizes[ref.node][ref.output]


# -- what estimates are made with ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """What is known of a query: why it cannot be run, "" when it can, and the columns it gives.

    `columns` is None where nobody could tell.
    """

    fault: str = ""
    columns: Columns | None = None


UNKNOWN_QUERY = BoundQuery()

SqlTypes: TypeAlias = Mapping[str, str]
"""The SQL types of a table's columns, by name."""


@dataclass(frozen=True, slots=True)
class EstimateContext:
    """What sizes are estimated with, beside the nodes.

    Relative sources lie in `folder`.  `bind` says whether a query fits tables, of which it is given
    the types of the columns, by the names that the query has for them.
    """

    folder: Path
    bind: Callable[[str, Mapping[str, SqlTypes]], BoundQuery]
