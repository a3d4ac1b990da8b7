"""Calls of tools by a model whose chat template knows none.

The model completes a text that shows two calls, the tools, and the conversation; a grammar made of
the tools' own schemas holds what it writes to a call of one of them.  Such a model cannot be left
to decide between a call and an answer, so `auto` calls a tool unless the last message is what a
tool answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from agentkit import strict_json
from agentkit.artifacts import Reply
from agentkit.errors import BadOutput
from agentkit.graph.messages import CallOfTool, ChatMessage, FunctionCall, ToolSpec
from agentkit.json_schemas import mismatch, rewritten
from agentkit.pool import finishable
from agentkit.pool.request import InferParams

_EXAMPLES = """\
Question: Is it warm in Lima?
Call: {"tool": "temperature_in", "arguments": {"city": "Lima"}}

Question: What is 6 times 7?
Call: {"tool": "multiply", "arguments": {"first": 6, "second": 7}}
"""


_COMBINING = frozenset(
    ("allOf", "dependentSchemas", "if", "not", "patternProperties", "unevaluatedProperties")
)
_WITH_PROPERTIES = frozenset(("$ref", "anyOf", "oneOf"))


def are_wanted(params: InferParams) -> bool:
    """Return whether the answer is to be a call."""
    if not params.tools or params.tool_choice == "none":
        return False
    is_answered = bool(params.messages) and params.messages[-1].role == "tool"
    return params.tool_choice != "auto" or not is_answered


def prompt(params: InferParams) -> str:
    """Return the text that the model completes by a call."""
    usable = _usable(params)
    lines = [message.content for message in params.conversation if message.role == "system"]
    lines += ["Choose a tool for each question, and its arguments, as JSON.", "", _EXAMPLES]
    lines += ["Tools:", *map(_told, usable), ""]
    for message in params.conversation:
        lines += _lines_of(message)
    return "\n".join([*lines, "Call: "])


def schema(params: InferParams) -> dict[str, Any]:
    """Return the schema of a call of one of the tools that may be called."""
    usable = _usable(params)
    definitions: dict[str, Any] = {}
    calls = []
    for number, tool in enumerate(usable):
        place = f"tool{number}"
        parameters = finishable.finishable(tool.function.parameters, params.max_tokens)
        definitions[place] = _placed(parameters, place)
        properties = {
            "tool": {"const": tool.function.name},
            "arguments": {"$ref": f"#/$defs/{place}"},
        }
        calls.append(
            {
                "type": "object",
                "properties": properties,
                "required": ["tool", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls, "$defs": definitions}


def is_at_end(params: InferParams, reply: Reply) -> bool:
    """Return whether a call has a text or a list as long as its grammar lets one be."""
    parameters = {tool.function.name: tool.function.parameters for tool in params.tools}
    return any(
        finishable.is_at_end(call.arguments, parameters[call.name], params.max_tokens)
        for call in reply.tool_calls
    )


def reply(params: InferParams, written: str, *, is_cut: bool) -> Reply:
    """Return the reply that calls the tool in what the model wrote; raises BadOutput.

    Blocks while a child process checks the arguments, for about a second at most.
    """
    try:
        call = strict_json.loads(written)
    except strict_json.BadJson as error:
        if is_cut:
            why = f"max_tokens={params.max_tokens} cut the call of a tool before it ended: raise it"
            raise BadOutput(f"{why} (it began {written[:80]!r})", of_task=True) from error
        raise BadOutput(f"the model's call of a tool is not JSON: {written[:80]!r}") from error
    by_name = {tool.function.name: tool for tool in _usable(params)}
    name = str(call.get("tool")) if isinstance(call, dict) else ""
    if name not in by_name or not isinstance(call.get("arguments"), dict):
        raise BadOutput(f"the model called no tool: {written[:80]!r}")
    arguments = strict_json.dumps(call["arguments"])
    difference = mismatch(arguments, by_name[name].function.parameters)
    if difference:
        raise BadOutput(f"the model's call of {name!r} breaks the tool's schema: {difference}")
    function = FunctionCall(name=name, arguments=arguments.decode())
    calls = (CallOfTool(id=_id(params, written), function=function),)
    return Reply.dump(ChatMessage(role="assistant", tool_calls=calls).on_wire())


def without_calls(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return a conversation as messages of text alone, for a template that knows no tools."""
    texts = []
    for message in messages:
        role = "user" if message.role == "tool" else message.role
        lines = [message.content] if message.role != "tool" else _lines_of(message)
        lines += [_call_line(call) for call in message.tool_calls]
        texts.append({"role": role, "content": "\n".join(filter(None, lines))})
    return texts


# -- inside --------------------------------------------------------------------------------------


def _usable(params: InferParams) -> list[ToolSpec]:
    """Return the tools that may be called: all, or the one that is chosen by name."""
    chosen = params.chosen_tool
    return [tool for tool in params.tools if chosen in ("", tool.function.name)]


def _told(tool: ToolSpec) -> str:
    """Return the line that tells the model of a tool."""
    function = tool.function
    names = ", ".join(function.parameters.get("properties", {}))
    first_line = next(iter(function.description.strip().splitlines()), "")
    return f"- {function.name}({names}): {first_line}"


def _lines_of(message: ChatMessage) -> list[str]:
    match message.role:
        case "user":
            return [f"Question: {message.content}"]
        case "assistant":
            said = [f"Answer: {message.content}"] if message.content else []
            return [*said, *map(_call_line, message.tool_calls)]
        case "tool":
            return [f"Result: {message.content}"]
        case _:
            return []


def _call_line(call: CallOfTool) -> str:
    """Return a call as a model writes it; escapes would be more tokens than a load declares."""
    arguments = " ".join(call.function.arguments.splitlines())
    return f'Call: {{"tool": "{call.function.name}", "arguments": {arguments}}}'


def _id(params: InferParams, written: str) -> str:
    """Return the id of a call: the same for the same question, and another in each round."""
    told = [message.model_dump_json() for message in params.conversation]
    digest = hashlib.sha256("\n".join([*told, written]).encode()).hexdigest()
    return f"call_{digest[:24]}"


def _placed(parameters: dict[str, Any], place: str) -> dict[str, Any]:
    """Return a tool's schema as it stands below `$defs` at `place`, where its references lead.

    Objects are closed, so that a small model adds no properties of its own, unless one schema adds
    to another: a closed part would refuse what the other part asks for.
    """
    combines = False

    def look(subschema: dict[str, Any]) -> dict[str, Any]:
        nonlocal combines
        adds = "properties" in subschema and not _WITH_PROPERTIES.isdisjoint(subschema)
        combines = combines or adds or not _COMBINING.isdisjoint(subschema)
        return subschema

    def moved(subschema: dict[str, Any]) -> dict[str, Any]:
        reference = subschema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            return {**subschema, "$ref": f"#/$defs/{place}{reference[1:]}"}
        if "properties" in subschema and not combines:
            return {"additionalProperties": False, **subschema}
        return subschema

    rewritten(parameters, look)
    whole = {"type": "object", **parameters}
    if whole.keys() <= {"type", "title", "description"}:
        whole["properties"] = {}
    return rewritten(whole, moved)
