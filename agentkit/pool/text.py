"""Requests to llama.cpp for text, and their answers; nothing here does I/O."""

from __future__ import annotations

from typing import Any

from agentkit import strict_json
from agentkit.artifacts import Json, Reply, Text
from agentkit.errors import BadOutput, Refused
from agentkit.json_schemas import fault_of, mismatch, unsupported_in
from agentkit.pool import tool_calls
from agentkit.pool.finishable import finishable, is_at_end
from agentkit.pool.request import InferParams

# By default llama.cpp ignores a schema silently if a grammar cannot express one of its keywords,
# and a small model may fill all its tokens with blanks.
_GUIDANCE = {"x-guidance": {"lenient": True, "whitespace_flexible": False}}


def request(params: InferParams) -> tuple[str, dict[str, Any]]:
    """Return the path and the body to post to llama.cpp; raises Refused for a bad schema."""
    body: dict[str, Any] = {
        "model": params.model,
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "stop": list(params.stop),
    }
    sampling = {"seed": params.seed, "top_p": params.top_p}
    body |= {name: value for name, value in sampling.items() if value is not None}
    if params.seed is not None:
        # What is left of an earlier prompt changes the last bits, and so what a seed draws.
        body["cache_prompt"] = False
    check_schemas(params)
    schema = params.json_schema
    if tool_calls.are_wanted(params):
        body |= {"prompt": tool_calls.prompt(params), "stop": []}
        return "/v1/completions", body | {"json_schema": tool_calls.schema(params) | _GUIDANCE}
    if params.style == "complete":
        if schema is not None:
            body["json_schema"] = finishable(schema, params.max_tokens) | _GUIDANCE
        return "/v1/completions", body | {"prompt": params.prompt}
    if schema is not None:
        schema = finishable(schema, params.max_tokens)
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    messages = tool_calls.without_calls(params.conversation)
    return "/v1/chat/completions", body | {"messages": messages}


def read_by_model(params: InferParams) -> str:
    """Return the text that the model reads, without the marks of its chat template."""
    if tool_calls.are_wanted(params):
        return tool_calls.prompt(params)
    if params.prompt is not None:
        return params.prompt
    return "".join(message["content"] for message in tool_calls.without_calls(params.messages))


def artifact(params: InferParams, answer: dict[str, Any]) -> Text | Json:
    """Return the generated text, JSON or reply; raises BadOutput if it does not fit its schema.

    Blocks while a child process checks that, for about a second at most.
    """
    choice = answer["choices"][0]
    is_cut = choice["finish_reason"] == "length"
    if tool_calls.are_wanted(params):
        return tool_calls.reply(params, str(choice["text"]), is_cut=is_cut)
    is_completion = params.style == "complete"
    content = str(choice["text"] if is_completion else choice["message"]["content"] or "")
    if params.tools:
        return Reply.dump({"role": "assistant", "content": content})
    if params.json_schema is None:
        return Text.of((content.strip() if is_completion else content).encode())
    try:
        value = strict_json.loads(content)
    except strict_json.BadJson as error:
        if is_cut:
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


def finish_reason(params: InferParams, answer: dict[str, Any], output: Text | Json) -> str:
    """Return why the model stopped, in the words of OpenAI's API.

    It is `length` too where a text or a list in the output ended because its grammar did.
    """
    if isinstance(output, Reply) and output.tool_calls:
        return "length" if tool_calls.is_at_end(params, output) else "tool_calls"
    schema = params.json_schema
    if schema is not None and is_at_end(
        strict_json.loads(output.read()), schema, params.max_tokens
    ):
        return "length"
    return str(answer["choices"][0]["finish_reason"])


def usage(answer: dict[str, Any]) -> dict[str, int]:
    """Return the tokens that llama.cpp counted."""
    token_counts = answer["usage"]
    return {"input": token_counts["prompt_tokens"], "output": token_counts["completion_tokens"]}


def check_schemas(params: InferParams) -> None:
    """Raise Refused for an invalid schema, or one that cannot be checked in linear time."""
    schemas = [tool.function.parameters for tool in params.tools]
    if params.json_schema is not None:
        schemas.append(params.json_schema)
    for schema in schemas:
        _check_schema("the schema", schema)
    if tool_calls.are_wanted(params):
        # Each may be small enough: the grammar is made of all of them.
        _check_schema("the schema of all tools together", tool_calls.schema(params))


def _check_schema(what: str, schema: dict[str, Any]) -> None:
    fault = fault_of(schema)
    if fault:
        raise Refused(f"{what} is not a JSON schema: {fault}", of_task=True)
    unsupported = unsupported_in(schema)
    if unsupported:
        raise Refused(f"{what} cannot be used: {unsupported}", of_task=True)
