"""Whether a result may be paid: it must be what was asked for, at no more than was agreed."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from agentkit.artifacts import Artifact, Embedding, Table, Text
from agentkit.errors import BadAmount, BadOutput
from agentkit.graph.nodes import InferNode, PaidNode, SqlNode
from agentkit.json_schemas import is_small, mismatch
from agentkit.market.attempt import Attempt, Result
from agentkit.market.offer import Offer, charge
from agentkit.market.task import Task
from agentkit.runtime.resolve import expected_outputs

SMALL_BYTES = 64 << 10
"""Up to here a result is read on the event loop; more would keep other purchases waiting."""


async def check_aside(
    node: PaidNode,
    task: Task,
    offer: Offer,
    attempt: Attempt,
    result: Result,
) -> None:
    """Raise BadOutput as `check` does, in a thread where that takes longer than a moment."""
    size = sum(output.size for output in result.outputs)
    schema = node.output if isinstance(node, InferNode) else None
    if is_small(size, schema) if isinstance(schema, dict) else size <= SMALL_BYTES:
        check(node, task, offer, attempt, result)
    else:
        await asyncio.to_thread(check, node, task, offer, attempt, result)


def check(
    node: PaidNode,
    task: Task,
    offer: Offer,
    attempt: Attempt,
    result: Result,
) -> None:
    """Raise BadOutput, saying why, unless the result keeps to the node, the task and the offer."""
    wrong = (
        _wrong_price(offer, attempt, result)
        or _wrong_counts(task, result)
        or _wrong_outputs(node, result)
    )
    if wrong:
        raise BadOutput(wrong, provider=offer.label)


def _wrong_counts(task: Task, result: Result) -> str:
    """Say what was counted beyond what the task can come to, each unit by itself.

    A prompt has no more tokens than bytes, an answer no more than its limit: within that, nobody
    but the provider can say how many there were.
    """
    for unit, count in result.usage.items():
        most = task.load.most.get(unit, 0)
        if count > most:
            return f"counts {count} of {unit} where there are {most} at most"
    return ""


def _wrong_price(offer: Offer, attempt: Attempt, result: Result) -> str:
    """Say why a result's price is not what its rates and usage come to, "" if it is."""
    try:
        owed = charge(attempt.at_most.asset, offer.rates, result.usage)
    except BadAmount as error:
        return str(error)
    if result.price != owed:
        return f"asks {result.price} where its rates and usage come to {owed}"
    if result.price > attempt.at_most:
        return f"asks {result.price}, above the at most of {attempt.at_most}"
    return ""


def _wrong_outputs(node: PaidNode, result: Result) -> str:
    """Say why a result's outputs are not what the node asked for, "" if they are."""
    wanted = expected_outputs(node)
    given = tuple(type(output) for output in result.outputs)
    if given != wanted:
        return f"delivered {[g.__name__ for g in given]} instead of {[w.__name__ for w in wanted]}"
    if not isinstance(node, SqlNode) and not all(output.size for output in result.outputs):
        return "delivered an empty output"  # a query may well find nothing
    if isinstance(node, InferNode) and isinstance(node.output, dict):
        return against_schema(result.outputs[0], node.output)
    return next(filter(None, map(_wrong_rows, result.outputs)), "")


def _wrong_rows(output: Artifact) -> str:
    """Say why an artifact is not what its kind promises, "" when it is."""
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
        return f"delivered what is no {output.kind}: {type(error).__name__}"
    return ""


def _is_vector(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
    )


def against_schema(output: Artifact, schema: dict[str, Any]) -> str:
    """Say how an output does not fit a JSON schema, "" when it does.

    Blocks while a child checks what is not small, for about a second at most.
    """
    error = mismatch(output.read(), schema)
    return f"the answer does not fit the schema: {error}" if error else ""
