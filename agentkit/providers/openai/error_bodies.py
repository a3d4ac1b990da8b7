"""The message in the body of an error, in every dialect."""

from __future__ import annotations

import json

MAX_MESSAGE = 300
"""The most characters of a provider's error message that are shown."""


def message_of(body: bytes) -> str:
    """Return the message in an error body, "" if it has none.

    Dialects differ: plain text, OpenAI's `error.message`, FastAPI's `detail` with the field at
    fault, or a `message`.
    """
    return _message_of(body.decode(errors="replace").strip())[:MAX_MESSAGE]


def _message_of(text: str) -> str:
    """Return the message in an error body, whatever its length."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        is_html = text.startswith("<")
        return "" if is_html or not text else text.splitlines()[0]
    if not isinstance(document, dict):
        return str(document)

    error = document.get("error")
    if isinstance(error, dict):
        return str(error.get("message", ""))
    detail = document.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        path = detail[0].get("loc")
        field = ".".join(map(str, path)) if isinstance(path, list) else "request"
        return f"{field}: {detail[0].get('msg', '')}"
    return str(error or document.get("message") or detail or "")
