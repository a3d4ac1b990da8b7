"""The message in the body of an error, in every dialect, and whether it says that nothing was done.

Dialects differ: plain text, OpenAI's `error.message`, FastAPI's `detail` with the field at fault, a
`message`, or a list of such.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

MAX_MESSAGE = 300
"""The most characters of a provider's error message that are shown."""

_STATUS = r"(?:^|code|status|error|http)[ :=]*"  # a bare number may count anything
_LIMITED = re.compile(rf"{_STATUS}429\b|rate.?limit|too many requests", re.IGNORECASE)
_NOT_THERE = re.compile(
    rf"{_STATUS}(502|503|529)\b|overloaded|model is (still )?loading|loading model"
    r"|bad gateway|service unavailable|temporarily unavailable",
    re.IGNORECASE,
)


def quoted(text: str) -> str:
    """Return the beginning of what a provider sent, as it is shown in an error."""
    return repr(text[:80])


def message_of(body: bytes) -> str:
    """Return the message in an error body, "" if it has none."""
    return _message_in(body.decode(errors="replace").strip())[:MAX_MESSAGE]


def error_in(document: Mapping[str, Any]) -> Any:
    """Return the error in an answer that says it succeeded, None without one.

    It stands beside the choices, in the first of them, or instead of them.
    """
    choices = document.get("choices")
    if document.get("error"):
        return document["error"]
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0].get("error") or None
    if choices:
        return None
    return document.get("detail") or document.get("message") or None


def message_in_error(error: Any) -> str:
    """Return what an error object, or a text in its place, says."""
    if isinstance(error, dict):
        return _message_of({"error": error})[:MAX_MESSAGE] or json.dumps(error)[:MAX_MESSAGE]
    return _message_of({"detail": error})[:MAX_MESSAGE]


def is_rate_limit(error: Any) -> bool:
    """Return whether an error says that too much was asked for."""
    return _code_of(error) == "429" or bool(_LIMITED.search(_short(error)))


def is_not_there(error: Any) -> bool:
    """Return whether an error says that the model could not be asked: overloaded, or loading."""
    return _code_of(error) in ("502", "503", "529") or bool(_NOT_THERE.search(_short(error)))


def _short(error: Any) -> str:
    """Return the text by which an error is judged: its message, type and code in words."""
    kind = error.get("type") if isinstance(error, dict) else ""
    return f"{message_in_error(error)} {kind or ''} {_code_of(error)}"


def _code_of(error: Any) -> str:
    """Return the HTTP status that an error object carries, "" without one."""
    if not isinstance(error, dict):
        return ""
    return str(error.get("code") or error.get("status") or "")[:40]


def _message_in(text: str) -> str:
    """Return the message in an error body, whatever its length."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        is_html = text.startswith("<")
        return "" if is_html or not text else text.splitlines()[0]
    if isinstance(document, list) and document and isinstance(document[0], dict):
        document = document[0]
    return _message_of(document) if isinstance(document, dict) else str(document)


def _message_of(document: Mapping[str, Any]) -> str:
    error = document.get("error")
    if isinstance(error, dict):
        return str(error.get("message", ""))
    detail = document.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        path = detail[0].get("loc")
        field = ".".join(map(str, path)) if isinstance(path, list) else "request"
        return f"{field}: {detail[0].get('msg', '')}"
    return str(error or document.get("message") or detail or "")
