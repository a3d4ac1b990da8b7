"""Checks a task's real size against its declared load, before any work is done for it.

A payer pays at most for what it declares.  Tokens, rows and bytes beyond that would be done for
nothing, so they are refused.  Processor time is limited too: to the declared `cpu_ms`, which has a
price, or else to the time that a task of the declared size needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentkit.artifacts import Artifact, Table
from agentkit.errors import Refused
from agentkit.market.task import CPU_MS, Units, cpu_ms_needed
from agentkit.pool import text
from agentkit.pool.limits import SlotLimits
from agentkit.pool.meter import TaskAllowance
from agentkit.pool.request import InferParams, QueryParams, TrainParams

MAX_IN_MEMORY = 32 * 1024 * 1024
"""The largest dataset to train on, or trained model, in bytes: it is held in memory."""

WALL_SECONDS = 20.0
WALL_PER_CPU = 5.0
"""A task may take WALL_SECONDS plus so many times its processor time: the machine may be busy."""


def check_declared(
    params: InferParams | TrainParams | QueryParams, inputs: Mapping[str, Artifact], declared: Units
) -> None:
    """Raise Refused for an invalid task, or one that is larger than its declared load.

    Blocks while a JSON schema is checked, for a fraction of a second at most.  The tokens of a
    prompt are counted later, by its model, before the model reads them.
    """
    for unit, count in declared.items():
        if count < 0:
            raise Refused(f"the load declares less than nothing of {unit!r}")
    is_held_in_memory = isinstance(params, TrainParams | InferParams)
    for name, artifact in inputs.items():
        if is_held_in_memory and artifact.size > MAX_IN_MEMORY:
            raise Refused(
                f"the input {name!r} has {artifact.size} bytes, and {MAX_IN_MEMORY} is the most"
            )
    for unit, count in _counted(params, inputs).items():
        if count > declared.get(unit, 0):
            raise Refused(
                f"this task comes to {count} of {unit!r}, and its load declares at most"
                f" {declared.get(unit, 0)}"
            )
    if isinstance(params, InferParams):
        if "model" in inputs and params.prompt is None:
            raise Refused("a trained head classifies one prompt, not messages", of_task=True)
        text.check_schemas(params)


def _counted(
    params: InferParams | TrainParams | QueryParams, inputs: Mapping[str, Artifact]
) -> dict[str, int]:
    """Return the units of a task that are known from its parameters and inputs alone."""
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
    """Count the rows of a table without reading a large file into memory."""
    if table.content is None:  # it is still being uploaded, and is checked again when it is here
        return 0
    rows = 0
    with table.open() as file:
        is_line_start = True
        # A long line comes in several parts; only the first of them counts.
        while part := file.readline(1 << 16):
            if is_line_start and part.strip():
                rows += 1
            is_line_start = part.endswith(b"\n")
    return rows


def allowance(declared: Units | None, limits: SlotLimits) -> TaskAllowance:
    """Return the time that a task of a declared load may use; None stands for an unpaid task.

    An unpaid task may use as much as the slot allows.
    """
    if declared is None:
        return TaskAllowance(cpu_seconds=limits.seconds, seconds=limits.seconds)
    milliseconds = declared.get(CPU_MS) or cpu_ms_needed(declared)
    cpu_seconds = min(milliseconds / 1000, limits.seconds)
    seconds = min(WALL_SECONDS + WALL_PER_CPU * cpu_seconds, limits.seconds)
    return TaskAllowance(cpu_seconds=cpu_seconds, seconds=seconds)


def tokens_may_exceed(texts: Sequence[str], declared: Units | None) -> bool:
    """Whether texts may have more tokens together than were declared.

    A token has at least one byte, so texts of no more bytes need no counting.
    """
    size = sum(len(text.encode()) for text in texts)
    return declared is not None and size > declared.get("input", 0)
