"""Whether artifacts are what they should be: as inputs of a task, and as results to be paid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agentkit.artifacts import Artifact, Embedding, Table, Text
from agentkit.errors import WrongInput
from agentkit.json_schemas import mismatch


def as_table(artifact: Artifact) -> Table:
    """Return an input that has to be a table; raises WrongInput."""
    if not isinstance(artifact, Table):
        raise WrongInput(f"a {type(artifact).__name__} has no rows")
    return artifact


def empty_output(outputs: Sequence[Artifact]) -> str:
    """Say that an output is empty, "" when none is."""
    return "" if all(output.size for output in outputs) else "delivered an empty output"


def unreadable_output(outputs: Sequence[Artifact]) -> str:
    """Say why an output is not what its type promises, "" when all are."""
    return next(filter(None, map(_unreadable, outputs)), "")


def _unreadable(output: Artifact) -> str:
    """Say why an artifact does not hold what its type promises, "" if it does."""
    try:
        if isinstance(output, Embedding):
            vectors = [row["vector"] for row in output.rows()]
            whole = bool(vectors) and all(map(_is_vector, vectors))
            return "" if whole else "delivered an embedding without vectors"
        if isinstance(output, Table):
            whole = all(isinstance(row, dict) for row in output.rows())
            return "" if whole else "delivered a table whose rows are not objects"
        if isinstance(output, Text):
            output.read().decode()
    except (ArithmeticError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"delivered what is not a valid {output.kind}: {type(error).__name__}"
    return ""


def _is_vector(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
    )


def schema_mismatch(output: Artifact, schema: dict[str, Any]) -> str:
    """Say how an output does not fit a JSON schema, "" when it does.

    Blocks while a child checks what is not small, for about a second at most.
    """
    error = mismatch(output.read(), schema)
    return f"the answer does not fit the schema: {error}" if error else ""
