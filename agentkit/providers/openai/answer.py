"""What a chat endpoint answered: the text and calls of its first choice, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agentkit.artifacts import Reply, Text
from agentkit.errors import writable
from agentkit.graph.messages import CallOfTool, ChatMessage
from agentkit.kinds.replies import MAX_CALLS
from agentkit.providers.openai.reading import UNREADABLE

ENDS = {"max_tokens": "length", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop"}
"""Other words for why an answer ended, and OpenAI's."""

THOUGHTS = ("thinking", "reasoning", "redacted_thinking")
"""The parts of an answer that are left out."""


@dataclass(frozen=True)
class ChatAnswer:
    """The text of an answer, and the calls in it; None where no tools were offered.

    `finish_reason` is `stop` for a whole one, `length` for one cut at its limit, `tool_calls` for
    one that calls tools, or another word of the endpoint.
    """

    text: str
    finish_reason: str
    tool_calls: tuple[CallOfTool, ...] | None = None

    def artifact(self) -> Text | Reply:
        """Return the answer as an artifact: a Reply where tools were offered."""
        if self.tool_calls is None:
            return Text.of(self.text.encode())
        message = ChatMessage(role="assistant", content=self.text, tool_calls=self.tool_calls)
        return Reply.dump(message.on_wire())


def answer_in(document: Mapping[str, Any], *, with_tools: bool = False) -> ChatAnswer:
    """Return the answer in a document without an error; raises ValueError, in words.

    `with_tools`: tools were offered, so that an answer may have calls and no text.
    """
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("it answered without a choice")
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {"content": choice.get("text")}

    finish_reason = _finish_reason(choice)
    text = _text_of(message.get("content")).strip()
    if finish_reason == "error":
        raise ValueError(f"its answer ended in an error, after {text[:80]!r}")
    if finish_reason == "content_filter":
        raise ValueError("its filter took the answer out (finish_reason 'content_filter')")
    if message.get("refusal"):
        raise ValueError(f"the model refuses: {str(message['refusal'])[:200]!r}")
    calls = _calls_in(message) if with_tools else ()
    if not text and not calls:
        raise ValueError(_why_empty(message, finish_reason))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("its text has half a character in it") from error
    return ChatAnswer(text, finish_reason, calls if with_tools else None)


def has_text(document: Mapping[str, Any]) -> bool:
    """Return whether a document has any text of an answer."""
    try:
        choice = document["choices"][0]
        message = choice.get("message") or choice
        return bool(message.get("content") or message.get("text"))
    except (AttributeError, LookupError, TypeError):
        return False


def _finish_reason(choice: Mapping[str, Any]) -> str:
    """Return why an answer ended; an endpoint that does not say gave all of it."""
    given = choice.get("finish_reason")
    reason = writable(given.lower()[:40]) if isinstance(given, str) and given else "stop"
    return ENDS.get(reason, reason)


def _calls_in(message: Mapping[str, Any]) -> tuple[CallOfTool, ...]:
    """Return the calls in a message; raises ValueError, in words.

    Some endpoints give no ids, or arguments as an object; both are told apart from the rest.
    """
    given = message.get("tool_calls") or []
    if not isinstance(given, list) or len(given) > MAX_CALLS:
        raise ValueError(f"its tool_calls are not a list of at most {MAX_CALLS}")
    return tuple(_call_of(call, number) for number, call in enumerate(given))


def _call_of(call: Any, number: int) -> CallOfTool:
    try:
        function = call["function"]
        arguments = function.get("arguments") or "{}"
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments)
        return CallOfTool.model_validate(
            {
                "id": call.get("id") or f"call_{number}",
                "function": {"name": function["name"], "arguments": arguments},
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))[:80]
        raise ValueError(f"its call of a tool cannot be read, {field}: {first['msg']}") from error
    except UNREADABLE as error:
        raise ValueError("its call of a tool cannot be read") from error


def _text_of(content: Any) -> str:
    """Return the text of a message, its parts joined; raises ValueError for what is not text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise ValueError(f"its answer is not text but {type(content).__name__}")  # noqa: TRY004
    return "".join(map(_text_of_part, content))


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind in THOUGHTS:
        return ""
    if kind in ("text", "output_text") and isinstance(part.get("text"), str):
        return str(part["text"])
    raise ValueError(f"its answer has a part that is not text but {str(kind)[:40]!r}")


def _why_empty(message: Mapping[str, Any], finish_reason: str) -> str:
    """Say why there is no text, and what would help."""
    if message.get("tool_calls"):
        return "it called a tool and gave no text"
    thought = message.get("reasoning_content") or message.get("reasoning")
    if thought and finish_reason == "length":
        return "all of its tokens went into reasoning: ask with a larger max_tokens"
    return "it gave no text"
