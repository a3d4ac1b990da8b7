"""What a node says of its routes, and whatever anybody makes of it."""

from __future__ import annotations

from pathlib import Path

from agentkit.serve import app
from agentkit.serve.openapi import openapi_document

OPERATORS = {("get", "/executions"), ("get", "/metrics")}


def test_every_route_is_described() -> None:
    source = Path(app.__file__).read_text().replace("UPLOAD", '"/artifacts/{digest}"')
    described = {
        (method, path) for path, item in openapi_document()["paths"].items() for method in item
    }
    for method, path in described | OPERATORS:
        assert f'web.{method}("{path}"' in source
    assert source.count("            web.") == len(described | OPERATORS)
