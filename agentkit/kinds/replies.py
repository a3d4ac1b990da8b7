"""Whether a reply is a message that its model was allowed to give: text, or calls of its tools."""

from __future__ import annotations

from pydantic import ValidationError

from agentkit import strict_json
from agentkit.graph.messages import ChatMessage
from agentkit.graph.nodes import InferNode
from agentkit.strict_json import BadJson

MAX_CALLS = 128
"""The most calls of tools in one reply."""


def fault_in_reply(reply: bytes, node: InferNode) -> str:
    """Say why a reply cannot be used, "" when it can.

    Whether the arguments of a call fit the tool's schema is for whoever calls the tool: models do
    get that wrong, and are told so in the next message.
    """
    try:
        given = strict_json.loads(reply)
        message = ChatMessage.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "it"
        return f"the reply is not a message: {field[:80]}: {first['msg'][:200]}"
    except BadJson as error:
        return f"the reply is not JSON: {error}"
    if message.role != "assistant":
        return f"the reply is a message of the {message.role}"
    if given != message.on_wire():
        return "the reply is not written as OpenAI's API has it"  # who reads it relies on that
    if message.tool_calls and len(message.tool_calls) > MAX_CALLS:
        return f"the reply has more than {MAX_CALLS} calls"
    if len({call.id for call in message.tool_calls}) < len(message.tool_calls):
        return "two calls in the reply have the same id"
    names = {tool.function.name for tool in node.tools}
    for call in message.tool_calls:
        if call.function.name not in names:
            return f"the reply calls {call.function.name!r}, which is none of the tools"
    return _fault_by_choice([call.function.name for call in message.tool_calls], node.tool_choice)


def _fault_by_choice(called: list[str], choice: str) -> str:
    """Say how the calls of a reply differ from what the model was told, "" when they do not."""
    if choice == "none" and called:
        return f"the reply calls {called[0]!r}, and tool_choice is 'none'"
    if choice not in ("auto", "none") and not called:
        return f"the reply calls no tool, and tool_choice is {choice!r}"
    if choice not in ("auto", "none", "required") and {*called} != {choice}:
        return f"the reply calls {', '.join(sorted({*called}))}, and tool_choice is {choice!r}"
    return ""
