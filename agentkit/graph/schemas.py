"""JSON schemas: made of types, and looked through before anything depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import PydanticUserError, TypeAdapter

from agentkit import json_schemas
from agentkit.errors import WrongInput


def schema_of(output: Any) -> dict[str, Any]:
    """Return the JSON schema of a pydantic model or a type; a schema itself is returned as it is.

    Raises WrongInput for what is neither.
    """
    if isinstance(output, dict):
        return output
    try:
        schema: dict[str, Any] = without_null_defaults(TypeAdapter(output).json_schema())
    except PydanticUserError as wrong:
        raise WrongInput(
            f"output={output!r} is not a type", hint="pass a pydantic model, a type or ak.Embedding"
        ) from wrong
    return schema


def fault_of(schema: Mapping[str, Any]) -> str:
    """Say why this is not a JSON schema of draft 2020-12, "" when it is one."""
    return json_schemas.fault_of(schema)


def without_null_defaults(schema: Any) -> Any:
    """Drop `default: null`, which says nothing and which TOML cannot write."""
    if isinstance(schema, dict):
        return {
            key: without_null_defaults(value)
            for key, value in schema.items()
            if (key, value) != ("default", None)
        }
    return [without_null_defaults(x) for x in schema] if isinstance(schema, list) else schema
