"""The options of one call of a chat model, as keywords of `JobGraph.infer`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentkit import strict_json
from agentkit.errors import WrongInput
from agentkit.graph.messages import ToolSpec, tool_of
from agentkit.graph.nodes import TOOL_CHOICES
from agentkit.strict_json import BadJson

KEYWORDS = {
    "model": "model",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "temperature": "temperature",
    "stop": "stop",
    "seed": "seed",
    "top_p": "top_p",
    "timeout": "timeout",
    "max_retries": "retries",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "response_format": "output",
}
"""The options of a call, and the keyword of `infer` that each becomes."""

IGNORED = ("ls_structured_output_format", "structured_output_format", "stream")
"""What LangChain passes along for itself: how it traces a call, and how it is read."""

JSON_OBJECT = {"type": "object"}
"""The schema of what `response_format={"type": "json_object"}` asks for: any object."""


def infer_keywords(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of `infer` for a call with the options `given`, which win over defaults.

    An option that is None is as if it were not given.  Raises WrongInput for one that there is not,
    so that nobody pays for an answer that ignores it.
    """
    check_known(given)
    options = {**_renamed(defaults), **_renamed(given)}
    tools = tool_documents(options.get("tools", ()))
    options |= {
        "stop": stops(options.get("stop")),
        "tools": tools or None,
        "tool_choice": tool_choice_of(options.get("tool_choice"), tools),
        "output": _schema_in(options.get("output")),
    }
    keywords = {name: value for name, value in options.items() if value is not None}
    _check_json(keywords)
    return keywords


def check_known(given: Mapping[str, Any]) -> None:
    """Raise WrongInput for an option that this model has not."""
    for name, value in given.items():
        if name == "n" and value not in (None, 1):
            raise WrongInput(
                f"n={value!r} is not supported: a call buys one answer",
                hint="call the model several times, for example with model.batch([messages] * 2)",
            )
        if name not in (*KEYWORDS, *IGNORED, "n"):
            raise WrongInput(
                f"this model has no option {name!r}", hint=f"write one of: {', '.join(KEYWORDS)}"
            )


def stops(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the texts at which an answer ends, of one alone or of several."""
    return (given,) if isinstance(given, str) else tuple(given or ())


def tool_documents(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Return tools in OpenAI's form; raises WrongInput for what is not a tool."""
    return [_tool_document(tool) for tool in tools]


def tool_choice_of(given: Any, tools: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what a model is told about its tools, None where that goes without saying.

    `given` is `"auto"`, `"none"`, `"required"`, `"any"` or True (both mean required), the name of
    a tool, or `{"type": "function", "function": {"name": ...}}`.
    """
    names = [str(tool["function"]["name"]) for tool in tools]
    if isinstance(given, Mapping):
        function = given.get("function")
        given = function.get("name") if isinstance(function, Mapping) else given
    elif given is True or (given == "any" and "any" not in names):
        given = "required"
    if given is None or given is False or (not tools and given in ("auto", "none")):
        return None
    if not tools:
        raise WrongInput(f"tool_choice={given!r} needs tools", hint="pass tools= as well")
    if not isinstance(given, str) or given not in (*TOOL_CHOICES, *names):
        raise WrongInput(
            f"tool_choice={given!r} names none of the tools",
            hint=f"write one of: {', '.join(dict.fromkeys((*TOOL_CHOICES, 'any', *names)))}",
        )
    return given


def _renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are given, by the keywords of `infer`."""
    return {
        KEYWORDS[name]: value
        for name, value in options.items()
        if name in KEYWORDS and value is not None
    }


def _check_json(keywords: Mapping[str, Any]) -> None:
    """Raise WrongInput for options that JSON cannot hold, such as half of a character."""
    try:
        strict_json.dumps(keywords)
    except BadJson as error:
        raise WrongInput(
            f"the options of a call cannot be sent: {error}",
            hint="write them as plain text, numbers, lists and objects",
        ) from error


def _tool_document(tool: Any) -> dict[str, Any]:
    if isinstance(tool, ToolSpec):
        return tool.on_wire()
    try:
        document = dict(tool_of(tool))
        named = document["function"]["name"]
    except (KeyError, TypeError) as error:
        # LangChain passes tools on that OpenAI runs itself, and they are no functions.
        raise WrongInput(
            f"{repr(tool)[:80]} is not a function that a model can call",
            hint="pass a function with annotated parameters and a docstring, or a pydantic model",
        ) from error
    if not isinstance(named, str):
        raise WrongInput(f"{named!r} is not the name of a tool", hint="name tools in plain text")
    return document


def _schema_in(response_format: Any) -> dict[str, Any] | None:
    """Return the JSON schema that a `response_format` of OpenAI asks for, None for plain text."""
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return JSON_OBJECT
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
    raise WrongInput(
        "response_format= is not in OpenAI's form",
        hint="use model.with_structured_output(YourModel, method='json_schema')",
    )
