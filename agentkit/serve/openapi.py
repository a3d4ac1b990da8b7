"""The description of a node's API in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0).

The schemas are made from the pydantic models that parse requests, so they cannot differ from them.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from agentkit.market.attempt import Message
from agentkit.providers import wire
from agentkit.serve.openai_wire import ChatRequest, CompletionRequest, EmbeddingRequest

_REFS = "#/components/schemas/{model}"

_Body = type[BaseModel] | None

_ROUTES: tuple[tuple[str, str, str, _Body, _Body], ...] = (
    ("get", "/node", "What the node is", None, wire.NodeFacts),
    ("get", "/openapi.json", "This description", None, None),
    ("post", "/offers", "Rates for a question", wire.Question, wire.WireOffer),
    ("post", "/carry", "Take a message of a payment rail", Message, Message),
    ("put", "/artifacts/{digest}", "Upload an input that a job waits for", None, None),
    ("get", "/artifacts/{digest}", "Download an output", None, None),
    ("post", "/jobs", "Submit a job", wire.Submission, wire.Job),
    ("get", "/jobs/{attempt}", "How a job stands", None, wire.Job),
    ("get", "/jobs/{attempt}/result", "Wait for a job's end", None, wire.Job),
    ("post", "/jobs/{attempt}/cancel", "Stop a job", None, wire.Job),
    ("get", "/v1/models", "List the models", None, None),
    ("post", "/v1/chat/completions", "Answer a chat", ChatRequest, None),
    ("post", "/v1/completions", "Continue a text", CompletionRequest, None),
    ("post", "/v1/embeddings", "Embed a text", EmbeddingRequest, None),
)
"""Method, path, summary, and the models of body and answer, in the order of `node_app`."""


class _Generator(GenerateJsonSchema):
    """Makes JSON schemas; money and rates, which pydantic cannot describe, are strings in them."""

    def handle_invalid_for_json_schema(
        self, schema: core_schema.CoreSchema, error_info: str
    ) -> JsonSchemaValue:
        return {"type": "string"}


@cache
def openapi_document() -> dict[str, Any]:
    """Return the description of every route except the operator's."""
    models: set[type[BaseModel]] = set()
    for _, _, _, body, answer in _ROUTES:
        models |= {model for model in (body, answer) if model}
    sorted_models = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in sorted_models],
        ref_template=_REFS,
        schema_generator=_Generator,
    )
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, body, answer in _ROUTES:
        paths.setdefault(path, {})[method] = _operation(method, path, summary, body, answer)
    return {
        "openapi": "3.1.0",
        "info": {"title": "agentkit provider node", "version": version("deai-agentkit")},
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {})},
    }


def _operation(method: str, path: str, summary: str, body: _Body, answer: _Body) -> dict[str, Any]:
    """Return the operation object of one route: its parameters, body and answer."""
    operation: dict[str, Any] = {
        "summary": summary,
        "parameters": [_digest(name) for name in ("digest", "attempt") if f"{{{name}}}" in path],
        "responses": {"default": {"description": "An error, or another answer", "content": {}}},
    }
    if answer:
        operation["responses"]["2XX"] = {"description": summary, "content": _json(answer)}
    if body:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    elif method == "put":
        binary = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": binary},
        }
    return operation


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFS.format(model=model.__name__)}}}


def _digest(name: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}
