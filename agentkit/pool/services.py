"""The services that a pool sells, by kind of task: the table to which a new kind is added.

This is the seller's side, which knows tasks as they come over the wire: the buying agent may have
another version.  The buyer's side of a kind of work is in `agentkit.kinds`.
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
    """Something with its own price; `name` is its row in a price list.

    `needs_model`: a task must name one of the pool's models; otherwise offers name `label` in place
    of a model.  `has_context`: the number of tokens is limited by its model.  `methods` are the
    methods that a task may name; empty if there is no choice.
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
    """A kind of task: its parameters, and the packages that it needs.

    `model_param` is the parameter that names its model, "" if it needs none.  `service` returns the
    service of a task, from the output it asks for and whether it brings a trained model.
    """

    params: type[InferParams | TrainParams | QueryParams]
    packages: tuple[str, ...]
    model_param: str
    service: Callable[[str, bool], Service]

    @property
    def installed(self) -> bool:
        """Whether the packages that it needs are installed."""
        return all(map(installed, self.packages))


def _infer_service(output: str, trained: bool) -> Service:
    """Return the service of an inference; a task with a trained model is classified by it."""
    if trained:
        return HEAD
    return EMBED if output == "embedding" else INFER


TASK_KINDS: Mapping[str, TaskKind] = {
    "infer": TaskKind(InferParams, ("xllamacpp",), "model", _infer_service),
    "train": TaskKind(TrainParams, ("xllamacpp", "numpy"), "base", lambda output, trained: TRAIN),
    "data": TaskKind(QueryParams, ("duckdb",), "", lambda output, trained: DATA),
}


def params_of(kind: str, params: Mapping[str, Any]) -> InferParams | TrainParams | QueryParams:
    """Parse and return the parameters of a task; raises Refused for an unknown kind or bad ones."""
    if kind not in TASK_KINDS:
        raise Refused(f"there is no kind {kind!r} here, only {', '.join(TASK_KINDS)}")
    try:
        return TASK_KINDS[kind].params.model_validate(params)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        message = f"parameter {name!r} of {kind}: {first['msg']}"
        raise Refused(message, of_task=True) from error
