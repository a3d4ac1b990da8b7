"""From a node and its inputs to the task a provider is asked to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentkit.artifacts import Artifact, Dataset, Embedding, Json, Model, Table, Text
from agentkit.errors import WrongInput
from agentkit.graph.columns import check_training
from agentkit.graph.nodes import InferNode, PaidNode, SqlNode, TrainNode
from agentkit.market.task import Load, Task, with_cpu
from agentkit.planner.estimate import infer_load
from agentkit.tables import ColumnType

Inputs = Mapping[str, Artifact]
"""Artifacts by what they are for, as `NodeBase.edges` names it."""


def infer_task(node: InferNode, inputs: Inputs, row: Mapping[str, Any] | None = None) -> Task:
    """Return the question of an infer node, for one row of `over` if it has one."""
    prompt = filled(node, inputs, row)
    params: dict[str, Any] = {
        "model": node.model if isinstance(node.model, str) else "",
        "prompt": prompt,
        "style": node.style,
        "max_tokens": node.max_tokens,
        "temperature": node.temperature,
        "stop": list(node.stop),
        "schema": node.output if isinstance(node.output, dict) else None,
    }
    if node.output == "embedding":
        params["output"] = "embedding"
    model = {"model": inputs["model"]} if "model" in inputs else {}
    return Task("infer", params, infer_load(len(prompt.encode()), node), model)


def filled(node: InferNode, inputs: Inputs, row: Mapping[str, Any] | None) -> str:
    """Return the prompt with columns and inputs filled in; raises WrongInput for a missing one."""
    values: dict[str, str] = {}
    for name in node.placeholders():
        if row is not None and name in row:
            values[name] = _as_words(row[name])
        elif name in node.inputs:
            values[name] = _as_text(node.name, name, inputs[name])
        else:
            raise WrongInput(
                f"the prompt of node {node.name!r} names {{{name}}}, and a row has only"
                f" {', '.join(row or {}) or 'no columns'}",
                hint="name a column that every row has",
            )
    return node.prompt.format_map(values)


def _as_words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_text(node: str, name: str, artifact: Artifact) -> str:
    if isinstance(artifact, Text | Json):
        return artifact.read().decode()
    raise WrongInput(
        f"input {name!r} of node {node!r} is a {type(artifact).__name__} and cannot stand in a"
        " prompt",
        hint="pass a Text or a Json",
    )


def train_task(node: TrainNode, inputs: Inputs) -> Task:
    """Return the training of a train node; raises WrongInput where nothing can be learned."""
    examples = _table(inputs["dataset"]).rows()
    in_every_row = set.intersection(*map(set, examples)) if examples else set()
    check_training(node, len(examples), in_every_row)
    rows = len(examples) * node.epochs
    fields = {"base", "method", "text", "label", "epochs", "seed"}
    load = with_cpu("train", Load(expected={"row": rows}, most={"row": rows}))
    return Task("train", node.model_dump(mode="json", include=fields), load, dict(inputs))


def sql_task(node: SqlNode, inputs: Inputs) -> Task:
    """Return the query of a data node."""
    size = sum(artifact.size for artifact in inputs.values())
    load = with_cpu("data", Load(expected={"byte": size}, most={"byte": size}))
    return Task("data", {"op": "sql", "sql": node.sql}, load, dict(inputs))


def _table(artifact: Artifact) -> Table:
    if not isinstance(artifact, Table):
        raise WrongInput(f"a {type(artifact).__name__} is not a table")
    return artifact


def expected_outputs(node: PaidNode) -> tuple[type[Artifact], ...]:
    """Return the types of artifact one purchase of a node must deliver."""
    match node:
        case TrainNode():
            return (Model,)
        case SqlNode():
            return (Dataset,)
        case InferNode(output="embedding"):
            return (Embedding,)
        case InferNode():
            return (Json,) if node.output else (Text,)
        case _:
            return node.outputs


def mapped_output(
    node: InferNode, over: Table, rows: Sequence[Mapping[str, Any]], answers: Sequence[Artifact]
) -> Artifact:
    """Return the rows of `over` with each one's answer in the further column that the node adds."""
    kind = Embedding if node.output == "embedding" else Dataset
    values = [_value(answer) for answer in answers]
    answered = [{**row, node.adds: v} for row, v in zip(rows, values, strict=True)]
    added: ColumnType = "text" if node.output is None else "nested"
    return kind.dump(answered, {} if rows else {**over.columns, node.adds: added})


def _value(answer: Artifact) -> Any:
    match answer:
        case Json():
            return answer.value
        case Embedding():
            return answer.rows()[0]["vector"]
        case _:
            return answer.read().decode()
