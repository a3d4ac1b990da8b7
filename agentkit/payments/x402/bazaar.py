"""The x402 extension `bazaar`: a seller says in its 402 what a route takes and what it answers.

Clients send it back with their payment, so facilitators can list the route for others to find.
Follows specs/extensions/bazaar.md of https://github.com/x402-foundation/x402.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BAZAAR = "bazaar"
"""The name of the extension."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a route that takes a JSON body is for.

    `body` is an example of what it takes, `body_schema` the JSON schema of it, `answer` an example
    of what it answers with.  A 402 travels in one header line, so they have to be short.
    """

    method: str
    description: str
    body: Mapping[str, Any]
    body_schema: Mapping[str, Any]
    answer: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the extension: `info` is what is declared, `schema` the schema of `info`."""
        info = {
            "input": {
                "type": "http",
                "method": self.method,
                "bodyType": "json",
                "body": dict(self.body),
            },
            "output": {"type": "json", "example": dict(self.answer)},
        }
        input_schema = {
            "type": "object",
            "properties": {
                "type": {"type": "string", "const": "http"},
                "method": {"type": "string", "enum": [self.method]},
                "bodyType": {"type": "string", "enum": ["json"]},
                "body": dict(self.body_schema),
            },
            "required": ["type", "method", "bodyType", "body"],
            "additionalProperties": False,
        }
        output_schema = {
            "type": "object",
            "properties": {"type": {"type": "string"}, "example": {"type": "object"}},
            "required": ["type"],
        }
        schema = {
            "$schema": DIALECT,
            "type": "object",
            "properties": {"input": input_schema, "output": output_schema},
            "required": ["input"],
        }
        return {"info": info, "schema": schema}
