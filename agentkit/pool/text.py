"""Text out of a model: what is posted to llama.cpp, and what its answer means.  No I/O."""

from __future__ import annotations

from typing import Any

from agentkit import strict_json
from agentkit.artifacts import Json, Text
from agentkit.errors import BadOutput, Refused
from agentkit.json_schemas import fault_of, mismatch, unsupported_in
from agentkit.pool.request import InferParams

# By default a keyword that no grammar can express drops the whole grammar without a word, and a
# small model may fill its tokens with blanks.
_GUIDANCE = {"x-guidance": {"lenient": True, "whitespace_flexible": False}}


def request(params: InferParams) -> tuple[str, dict[str, Any]]:
    """Return the path and the body to post; raises Refused for a schema that is none."""
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
        shape = {} if schema is None else {"json_schema": schema | _GUIDANCE}
        return "/v1/completions", body | shape | {"prompt": params.prompt}
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    message = {"role": "user", "content": params.prompt}
    return "/v1/chat/completions", body | {"messages": [message]}


def artifact(params: InferParams, answer: dict[str, Any]) -> Text | Json:
    """Return what was generated; raises BadOutput when it breaks the schema.

    Blocks while a child checks that, for about a second at most.
    """
    choice = answer["choices"][0]
    complete = params.style == "complete"
    said = str(choice["text"] if complete else choice["message"]["content"] or "")
    if params.json_schema is None:
        return Text.of((said.strip() if complete else said).encode())
    try:
        value = strict_json.loads(said)
    except strict_json.BadJson as wrong:
        if choice["finish_reason"] == "length":
            told = f"max_tokens={params.max_tokens} cut the answer before its JSON ended: raise it"
            raise BadOutput(f"{told} (it began {said[:80]!r})", of_task=True) from wrong
        raise BadOutput(f"the model's answer is not JSON: {said[:80]!r}") from wrong
    made = Json.dump(value)
    error = mismatch(made.read(), params.json_schema)
    if error:
        raise BadOutput(f"the model's answer breaks the schema: {error}")
    return made


def usage(answer: dict[str, Any]) -> dict[str, int]:
    """Return the tokens that llama.cpp counted."""
    counted = answer["usage"]
    return {"input": counted["prompt_tokens"], "output": counted["completion_tokens"]}


def check_schema(schema: dict[str, Any]) -> None:
    """Raise Refused for what is no schema, or cannot be checked in linear time."""
    fault = fault_of(schema)
    if fault:
        raise Refused(f"the schema is not a JSON schema: {fault}", of_task=True)
    unsupported = unsupported_in(schema)
    if unsupported:
        raise Refused(f"the schema cannot be used: {unsupported}", of_task=True)
