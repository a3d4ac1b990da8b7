"""What a chat endpoint answered: the text of its first choice, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ENDS = {"max_tokens": "length", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop"}
"""Other words for why an answer ended, and OpenAI's."""

THOUGHTS = ("thinking", "reasoning", "redacted_thinking")
"""The parts of an answer that are left out."""


@dataclass(frozen=True)
class ChatAnswer:
    """The text of an answer.

    `finish_reason` is `stop` for a whole one, `length` for one cut at its limit, or another word
    of the endpoint.
    """

    text: str
    finish_reason: str


def answer_in(document: Mapping[str, Any]) -> ChatAnswer:
    """Return the answer in a document without an error; raises ValueError, in words."""
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
    if not text:
        raise ValueError(_why_empty(message, finish_reason))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("its text has half a character in it") from error
    return ChatAnswer(text, finish_reason)


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
    reason = given.lower()[:40] if isinstance(given, str) and given else "stop"
    return ENDS.get(reason, reason)


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
