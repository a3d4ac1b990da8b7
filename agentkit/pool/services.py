"""What the pool sells, by kind of task: the one table that a new kind of task is added to.

It is the seller's side, and knows tasks as they come over the wire: other agents may be of other
versions.  What a kind of work is to the agent that buys it stands in `agentkit.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agentkit.errors import Refused
from agentkit.pool.extras import installed
from agentkit.pool.request import InferParams, QueryParams, TrainParams


@dataclass(frozen=True, slots=True)
class Service:
    """Something with a price of its own; `name` is its row of a price list.

    `needs_model`: one of the pool's models must be named; without, the service is offered as being
    done on `label`.  `has_context`: its model takes so many tokens and no more.  `methods` are all
    that it can be asked for, where it can be asked for any.
    """

    name: str
    needs_model: bool = True
    has_context: bool = False
    methods: tuple[str, ...] = ()
    label: str = ""


INFER = Service("infer", has_context=True)
EMBED = Service("embed")
HEAD = Service("head", needs_model=False, label="a trained head")
TRAIN = Service("train", methods=("head",))
DATA = Service("data", needs_model=False)


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A kind of task: its parameters, the packages that do it, and which service it is.

    `model_param` is the parameter that names its model.  `service` is told what output is asked
    for, and whether a trained model comes with the task.
    """

    params: type[InferParams | TrainParams | QueryParams]
    packages: tuple[str, ...]
    model_param: str
    service: Callable[[str, bool], Service]

    @property
    def installed(self) -> bool:
        """Whether the packages that do it are there."""
        return all(map(installed, self.packages))


def _infer_service(output: str, trained: bool) -> Service:
    if trained:
        return HEAD
    return EMBED if output == "embedding" else INFER


TASK_KINDS: Mapping[str, TaskKind] = {
    "infer": TaskKind(InferParams, ("xllamacpp",), "model", _infer_service),
    "train": TaskKind(TrainParams, ("xllamacpp", "numpy"), "base", lambda output, trained: TRAIN),
    "data": TaskKind(QueryParams, ("duckdb",), "", lambda output, trained: DATA),
}


def params_of(kind: str, params: Mapping[str, Any]) -> InferParams | TrainParams | QueryParams:
    """Return the parameters of a task; raises Refused for what is not offered."""
    if kind not in TASK_KINDS:
        raise Refused(f"there is no kind {kind!r} here, only {', '.join(TASK_KINDS)}")
    try:
        return TASK_KINDS[kind].params.model_validate(params)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        told = f"parameter {where!r} of {kind}: {first['msg']}"
        raise Refused(told, of_task=True) from error
