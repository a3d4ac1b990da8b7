"""A task's declared size against its real one, before anything is done for it.

What a payer declares is what it has agreed to pay for.  Tokens, rows and bytes beyond that would
be work for nothing, and so would processor time: as much is allowed as such a size needs, or as
much as is declared (`cpu_ms`, which has a price).
"""

from __future__ import annotations

from collections.abc import Mapping

from agentkit.artifacts import Artifact, Table
from agentkit.errors import Refused
from agentkit.market.task import CPU_MS, Units, cpu_ms_needed
from agentkit.pool import text
from agentkit.pool.limits import SlotLimits
from agentkit.pool.meter import TaskAllowance
from agentkit.pool.request import InferParams, QueryParams, TrainParams

MAX_IN_MEMORY = 32 * 1024 * 1024
"""Bytes of the largest dataset to train on, or trained model: they are worked on in memory."""

WALL_SECONDS = 20.0
WALL_PER_CPU = 5.0
"""How much longer than its processor time a task may last: its machine does other things too."""


def check_declared(
    params: InferParams | TrainParams | QueryParams, inputs: Mapping[str, Artifact], declared: Units
) -> None:
    """Raise Refused for a task that is no task, or larger than it was declared.

    Blocks while a schema is looked through, for a fraction of a second at most.  A prompt's
    tokens are counted later, where a model is: before it reads them.
    """
    negative = next((unit for unit, count in declared.items() if count < 0), None)
    if negative is not None:
        raise Refused(f"the load declares less than nothing of {negative!r}")
    largest = MAX_IN_MEMORY if isinstance(params, TrainParams | InferParams) else None
    for name, artifact in inputs.items():
        if largest is not None and artifact.size > largest:
            raise Refused(
                f"the input {name!r} has {artifact.size} bytes, and {largest} is the most"
            )
    for unit, count in _counted(params, inputs).items():
        if count > declared.get(unit, 0):
            raise Refused(
                f"this task comes to {count} of {unit!r}, and its load declares at most"
                f" {declared.get(unit, 0)}"
            )
    if isinstance(params, InferParams) and params.json_schema is not None:
        text.check_schema(params.json_schema)


def _counted(
    params: InferParams | TrainParams | QueryParams, inputs: Mapping[str, Artifact]
) -> dict[str, int]:
    """Return the units of a task that can be counted from its inputs before it is done."""
    match params:
        case TrainParams():
            dataset = inputs.get("dataset")
            rows = _rows(dataset) if isinstance(dataset, Table) else 0
            return {"row": rows * params.epochs}
        case QueryParams():
            return {"byte": sum(artifact.size for artifact in inputs.values())}
        case InferParams() if params.output == "embedding" or "model" in inputs:
            return {}
        case InferParams():
            return {"output": params.max_tokens}


def _rows(table: Table) -> int:
    """Count the rows of a table that may be a large file, without having all of it in memory."""
    if table.content is None:  # it has not arrived; it is counted when it has
        return 0
    rows = 0
    with table.open() as file:
        starts = True
        while part := file.readline(1 << 16):
            rows += starts and bool(part.strip())
            starts = part.endswith(b"\n")
    return rows


def allowance(declared: Units | None, limits: SlotLimits) -> TaskAllowance:
    """Return what a task of so many units may use; None: as much as a slot allows anyone."""
    if declared is None:
        return TaskAllowance(limits.seconds, limits.seconds)
    milliseconds = declared.get(CPU_MS) or cpu_ms_needed(declared)
    cpu_seconds = min(milliseconds / 1000, limits.seconds)
    seconds = min(WALL_SECONDS + WALL_PER_CPU * cpu_seconds, limits.seconds)
    return TaskAllowance(cpu_seconds, seconds)


def tokens_may_exceed(prompt: str, declared: Units | None) -> bool:
    """Whether a prompt may have more tokens than were declared: a token is a byte at least."""
    return declared is not None and len(prompt.encode()) > declared.get("input", 0)
