"""Requests to llama.cpp for text, and their answers; nothing here does I/O."""

from __future__ import annotations

from typing import Any

from agentkit import strict_json
from agentkit.artifacts import Json, Text
from agentkit.errors import BadOutput, Refused
from agentkit.json_schemas import fault_of, mismatch, unsupported_in
from agentkit.pool.request import InferParams

# By default llama.cpp ignores a schema silently if a grammar cannot express one of its keywords,
# and a small model may fill all its tokens with blanks.
_GUIDANCE = {"x-guidance": {"lenient": True, "whitespace_flexible": False}}


def request(params: InferParams) -> tuple[str, dict[str, Any]]:
    """Return the path and the body to post to llama.cpp; raises Refused for a bad schema."""
    body = {
        "model": params.model,
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "stop": list(params.stop),
    }
    schema = params.json_schema
    if schema is not None:
        check_schema(schema)
    if params.style == "complete":
        if schema is not None:
            body["json_schema"] = schema | _GUIDANCE
        return "/v1/completions", body | {"prompt": params.prompt}
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    message = {"role": "user", "content": params.prompt}
    return "/v1/chat/completions", body | {"messages": [message]}


def artifact(params: InferParams, answer: dict[str, Any]) -> Text | Json:
    """Return the generated text or JSON; raises BadOutput if it does not fit the schema.

    Blocks while a child process checks that, for about a second at most.
    """
    choice = answer["choices"][0]
    is_completion = params.style == "complete"
    content = str(choice["text"] if is_completion else choice["message"]["content"] or "")
    if params.json_schema is None:
        return Text.of((content.strip() if is_completion else content).encode())
    try:
        value = strict_json.loads(content)
    except strict_json.BadJson as error:
        if choice["finish_reason"] == "length":
            reason = (
                f"max_tokens={params.max_tokens} cut the answer before its JSON ended: raise it"
            )
            raise BadOutput(f"{reason} (it began {content[:80]!r})", of_task=True) from error
        raise BadOutput(f"the model's answer is not JSON: {content[:80]!r}") from error
    output = Json.dump(value)
    difference = mismatch(output.read(), params.json_schema)
    if difference:
        raise BadOutput(f"the model's answer breaks the schema: {difference}")
    return output


def usage(answer: dict[str, Any]) -> dict[str, int]:
    """Return the tokens that llama.cpp counted."""
    token_counts = answer["usage"]
    return {"input": token_counts["prompt_tokens"], "output": token_counts["completion_tokens"]}


def check_schema(schema: dict[str, Any]) -> None:
    """Raise Refused for an invalid schema, or one that cannot be checked in linear time."""
    fault = fault_of(schema)
    if fault:
        raise Refused(f"the schema is not a JSON schema: {fault}", of_task=True)
    unsupported = unsupported_in(schema)
    if unsupported:
        raise Refused(f"the schema cannot be used: {unsupported}", of_task=True)
