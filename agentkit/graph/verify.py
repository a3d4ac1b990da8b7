"""What users write for `verify=`: checks a result has to pass before it is paid.

A function of the user's may stand there as it is: it gets the output and returns True or False.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from agentkit.errors import WrongInput
from agentkit.graph.checks import Named, Redundant, SchemaCheck
from agentkit.graph.schemas import schema_of


def redundant(k: int, *, of: int) -> Redundant:
    """Buy the result `of` times from as many provider nodes; pay those of `k` that agree."""
    try:
        return Redundant(check="redundant", k=k, of=of)
    except ValidationError as wrong:
        raise WrongInput(
            f"redundant({k}, of={of}) cannot be: at most 9 replicas, and no more agree than come",
            hint="write ak.verify.redundant(2, of=3)",
        ) from wrong


def schema(shape: Any) -> SchemaCheck:
    """Require a JSON schema, given as a pydantic model, a type or the schema itself."""
    return SchemaCheck(check="schema", schema_=schema_of(shape))


def named(name: str, **params: Any) -> Named:
    """Use a verifier of another package, by its entry point in `agentkit.verifiers`."""
    return Named(check="named", name=name, params=params)
