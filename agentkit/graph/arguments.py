"""What the builder's keyword arguments become in the document of a node."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel

from agentkit.artifacts import Artifact, Embedding
from agentkit.errors import WrongInput
from agentkit.graph import callables
from agentkit.graph.checks import Named
from agentkit.graph.nodes import NodeBase, PaidNode
from agentkit.graph.plugins import InstalledVerifier
from agentkit.graph.schemas import schema_of


def keywords_of(node_type: type[NodeBase]) -> list[str]:
    """Return what the method that adds such a node takes by keyword, its own first."""
    internal = {"name", "kind", "op", "fn", "args", "returns"}
    fields = [field for field in node_type.model_fields if field not in internal]
    return sorted(fields, key=lambda field: field not in node_type.__annotations__)


def listed(given: Any) -> tuple[Any, ...]:
    """Return what was given alone, as a list or not at all, as a tuple."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def check_of(name: str, given: Any) -> Any:
    """Return a check for the document: the given one, or that a function accepts the result."""
    if isinstance(given, BaseModel):
        return given
    if not callable(given) or inspect.isclass(given):
        raise WrongInput(
            f"verify= of node {name!r} takes checks and functions, and {given!r} is neither",
            hint="write verify=ak.verify.schema(...), ak.verify.redundant(2, of=3) or a function",
        )
    return {"check": "callable", "fn": callables.describe(given)}


def installed_verifiers(node: NodeBase) -> dict[tuple[str, str], InstalledVerifier]:
    """Return what makes the verifiers of other packages that a node names, by node and place.

    This program wrote the node, so that it needs nobody's consent to them.
    """
    checks = node.verify if isinstance(node, PaidNode) else ()
    return {
        (node.name, f"verify.{n}"): InstalledVerifier(check.name)
        for n, check in enumerate(checks)
        if isinstance(check, Named)
    }


def output_of(output: Any) -> dict[str, Any] | Literal["embedding"] | None:
    """Return what `output=` stands for: a JSON schema, `"embedding"`, or None for plain text."""
    if output is None:
        return None
    return "embedding" if output is Embedding else schema_of(output)


def returned_by(fn: Callable[..., Any]) -> str:
    """Return the kind of artifact that a function's annotation promises, else `"json"`."""
    try:
        hint = get_type_hints(fn).get("return")
    except (NameError, TypeError):
        return "json"
    return hint.kind if inspect.isclass(hint) and issubclass(hint, Artifact) else "json"
