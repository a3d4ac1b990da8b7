"""What a model is asked: the texts of a node, its names in braces filled in, and its tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agentkit.artifacts import Artifact, Json, Text
from agentkit.errors import WrongInput
from agentkit.graph.nodes import TOOL_CHOICES, InferNode
from agentkit.kinds.kind import Inputs

MESSAGE_TOKENS = 16
"""The most that a chat template adds to each message after the first."""

TOOLS_TOKENS = 512
"""The most that a chat template adds to say how tools are called."""


def bytes_as_written(node: InferNode) -> int:
    """Return the bytes of a question before anything is filled in, its tools and marks included."""
    return _bytes_beside_texts(node) + sum(len(text.encode()) for text in node.templates)


def filled(node: InferNode, inputs: Inputs, row: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the parameters of a task that hold its question; raises WrongInput for a missing name.

    They are `prompt`, or `messages` in the form of OpenAI's chat API.
    """
    values = {name: _value(node, name, inputs, row) for name in node.placeholders()}
    if node.prompt is not None:
        return {"prompt": node.prompt.format_map(values)}
    return {
        "messages": [
            message.on_wire(message.content.format_map(values)) for message in node.messages
        ]
    }


def bytes_of(node: InferNode, question: Mapping[str, Any]) -> int:
    """Return the bytes of a question that is filled in, its tools and marks included."""
    texts = [question.get("prompt", "")]
    texts += [message["content"] or "" for message in question.get("messages", ())]
    return _bytes_beside_texts(node) + sum(len(text.encode()) for text in texts)


def asked_beside(node: InferNode) -> dict[str, Any]:
    """Return the parameters of a task that only some nodes have: tools, a seed, a share of words.

    Where a node has none of them its task is the same as before there were any, digest included.
    """
    params: dict[str, Any] = {}
    if node.tools:
        params["tools"] = [tool.on_wire() for tool in node.tools]
        params["tool_choice"] = _choice(node.tool_choice)
    if node.seed is not None:
        params["seed"] = node.seed
    if node.top_p is not None:
        params["top_p"] = node.top_p
    return params


def count_of_columns(node: InferNode) -> int:
    """Return how many times a text names a column of a row."""
    return sum(name not in node.inputs for name in node.named())


def uses_of(node: InferNode, name: str) -> int:
    """Return how many times a text names an input, and at least once."""
    return max(1, list(node.named()).count(name))


def _bytes_beside_texts(node: InferNode) -> int:
    """Return what is read beside the texts, a token counted as a byte: it has no fewer."""
    calls = [call.model_dump_json() for message in node.messages for call in message.tool_calls]
    tools = [json.dumps(tool.on_wire()) for tool in node.tools]
    marks = MESSAGE_TOKENS * max(0, len(node.messages) - 1) + (TOOLS_TOKENS if tools else 0)
    return marks + sum(len(text.encode()) for text in calls + tools)


def _choice(choice: str) -> Any:
    """Return what a model is told about its tools, in the form of OpenAI's chat API."""
    if choice in TOOL_CHOICES:
        return choice
    return {"type": "function", "function": {"name": choice}}


def _value(node: InferNode, name: str, inputs: Inputs, row: Mapping[str, Any] | None) -> str:
    """Return what stands in a text for a name: the cell of a row, or an input."""
    if row is not None and name in row:
        return _cell_text(row[name])
    if name in node.inputs:
        return _input_text(node, name, inputs[name])
    raise WrongInput(
        f"the prompt of node {node.name!r} names {{{name}}}, and a row has only"
        f" {', '.join(row or {}) or 'no columns'}",
        hint="name a column that every row has",
    )


def _cell_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _input_text(node: InferNode, name: str, artifact: Artifact) -> str:
    if isinstance(artifact, Text | Json):
        return artifact.read().decode()
    raise WrongInput(
        f"input {name!r} of node {node.name!r} is a {type(artifact).__name__} and cannot stand in a"
        " prompt",
        hint="pass a Text or a Json",
    )
