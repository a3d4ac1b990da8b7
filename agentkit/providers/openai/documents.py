"""The JSON document in the body of a chat answer, whatever its encoding and framing.

Endpoints write a byte order mark, another charset, blank lines to keep a connection alive, or a
stream of server-sent events although none was asked for.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from agentkit.providers.http import Answer
from agentkit.providers.openai.error_bodies import quoted
from agentkit.providers.openai.reading import UNREADABLE

CHARSETS = ("utf-8", "utf-16", "utf-32", "iso8859-1", "cp1252", "ascii")
"""The charsets that are read: Python knows codecs that are none, such as compression."""

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and what they stand for; that of UTF-32 begins with that of UTF-16."""


class BrokenOff(ValueError):
    """A stream of events has no end, so more may have been said than came."""


def document_in(answer: Answer) -> dict[str, Any]:
    """Return the JSON object in an answer; raises ValueError, in words, and BrokenOff."""
    content_type = answer.headers.get("content-type", "").lower()
    text = _text_in(answer.body, content_type).strip()
    if not text:
        raise ValueError("it is empty")
    if text.startswith("<"):
        raise ValueError(f"it is a page and not JSON: {_page_words(text)!r}")
    if "text/event-stream" in content_type or re.match(r"(data|event|id|retry)?:", text):
        return _joined_events(text)
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"it is not JSON: {quoted(text)}") from error
    if not isinstance(document, dict):
        raise ValueError(f"it is no JSON object: {quoted(text)}")  # noqa: TRY004
    return document


def _text_in(body: bytes, content_type: str) -> str:
    """Return the text of a body, by its byte order mark or else by its charset."""
    marked = (encoding for mark, encoding in MARKS if body.startswith(mark))
    encoding = next(marked, "") or _charset_in(content_type)
    try:
        return body.decode(encoding)
    except UnicodeError as error:
        raise ValueError(f"it is not text in {encoding}") from error


def _charset_in(content_type: str) -> str:
    """Return the charset that a Content-Type names if it is a common one, UTF-8 otherwise."""
    named = re.search(r'charset\s*=\s*"?([\w.:-]{1,40})', content_type)
    try:
        name = codecs.lookup(named[1]).name if named else "utf-8"
    except LookupError:
        return "utf-8"
    return name if name.removesuffix("-le").removesuffix("-be") in CHARSETS else "utf-8"


def _page_words(text: str) -> str:
    """Return the first words of an HTML page."""
    words = re.sub(r"<[^>]{0,1000}>", " ", text[:4000])
    return " ".join(words.split())[:100]


def _joined_events(text: str) -> dict[str, Any]:
    """Return a stream of `chat.completion.chunk` events as the one answer that they make up."""
    whole: dict[str, Any] = {}
    texts: list[str] = []
    refusals: list[str] = []
    calls: dict[int, dict[str, Any]] = {}
    finish_reason = None
    is_whole = False
    for data in _events_in(text):
        if data == "[DONE]":
            is_whole = True
            break
        try:
            chunk = json.loads(data)
            for name in ("id", "model", "usage", "error"):
                if chunk.get(name) is not None:
                    whole[name] = chunk[name]
            for choice in chunk.get("choices") or []:
                if choice.get("index", 0) != 0:
                    continue
                delta = choice.get("delta") or choice.get("message") or choice
                texts += _texts_of(delta.get("content") or delta.get("text"))
                refusals += _texts_of(delta.get("refusal"))
                _join_calls(calls, delta.get("tool_calls") or [])
                finish_reason = choice.get("finish_reason") or finish_reason
        except UNREADABLE as error:
            raise ValueError(f"an event in it is not JSON: {quoted(data)}") from error
    if not is_whole and finish_reason is None and "error" not in whole:
        raise BrokenOff("its stream of events has no end")
    if texts or refusals or calls or finish_reason:
        message: dict[str, Any] = {"content": "".join(texts), "refusal": "".join(refusals)}
        message |= {"tool_calls": list(calls.values())} if calls else {}
        whole["choices"] = [{"message": message, "finish_reason": finish_reason}]
    return whole


def _join_calls(calls: dict[int, dict[str, Any]], deltas: list[Any]) -> None:
    """Add a chunk's parts of calls to the calls by their index: the first part names each."""
    for delta in deltas:
        index = delta.get("index")
        if index is None:  # some leave it out: then another id is another call
            last = max(calls, default=-1)
            is_new = not calls or (delta.get("id") and delta["id"] != calls[last].get("id"))
            index = last + 1 if is_new else last
        call = calls.setdefault(int(index), {"function": {"arguments": ""}})
        function = delta.get("function") or {}
        if delta.get("id"):
            call["id"] = delta["id"]
        if function.get("name"):
            call["function"]["name"] = function["name"]
        call["function"]["arguments"] += function.get("arguments") or ""


def _texts_of(content: Any) -> list[str]:
    """Return a delta's text, none for None; raises TypeError for anything else."""
    if not content:
        return []
    if not isinstance(content, str):
        raise TypeError("a delta that is not text")
    return [content]


def _events_in(text: str) -> Iterator[str]:
    """Yield the data of each server-sent event; lines with a colon first are comments."""
    for event in re.split(r"\r?\n\r?\n", text):
        lines = (line for line in event.splitlines() if line.startswith("data:"))
        data = "\n".join(line.removeprefix("data:").strip() for line in lines)
        if data:
            yield data
