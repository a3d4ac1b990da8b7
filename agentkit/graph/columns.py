"""Whether the columns of a table are those that a node can work with."""

from __future__ import annotations

from collections.abc import Collection

from agentkit.errors import WrongInput
from agentkit.graph.nodes import InferNode, TrainNode


def check_columns(node: InferNode, columns: Collection[str]) -> None:
    """Raise WrongInput where a mapped node would overwrite a column, or could mean two things.

    It is asked when the columns are known: while planning for a local file, else before the first
    row is bought.
    """
    if node.adds in columns:
        other = 'set column="..." to another name'
        if node.output == "embedding":
            other = f"rename the column {node.adds!r} with a data node before"
        raise WrongInput(
            f"node {node.name!r} would overwrite the column {node.adds!r} of its rows with its"
            " answers",
            hint=other,
        )
    ambiguous = node.placeholders() & set(node.inputs) & set(columns)
    if ambiguous:
        name = min(ambiguous)
        raise WrongInput(
            f"{{{name}}} in the prompt of node {node.name!r} is an input and a column of its rows",
            hint=f"give the input another name than {name!r}",
        )


def check_training(node: TrainNode, rows: int, in_every_row: Collection[str]) -> None:
    """Raise WrongInput where there is nothing to train on, or where a column is missing.

    Which columns a provider's own method reads, only that provider knows.
    """
    if not rows:
        raise WrongInput(
            f"node {node.name!r} has no rows to train on",
            hint="check the query or the split before it: it leaves none",
        )
    names = ", ".join(sorted(in_every_row)) or "only columns that all rows have"
    for column in (node.text, node.label) if node.method == "head" else ():
        if column not in in_every_row:
            raise WrongInput(
                f"node {node.name!r} trains on the column {column!r}, and not every row has it",
                hint=f"set text= and label= to two of: {names}",
            )
