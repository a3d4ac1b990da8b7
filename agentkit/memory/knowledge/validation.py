"""What may be remembered: names, texts and JSON of bounded size that read back as they were.

What cannot be read back is refused before it is written: NaN, tuples, keys that are no text, lone
surrogates, nesting that parsers give up on.
"""

from __future__ import annotations

import json
import math
from typing import Any

from agentkit.errors import WrongInput

MOST_NAME = 256
"""Characters in the name of a topic, a fact or a shelf."""

MOST_TEXT = 64 * 1024
"""Bytes in a note, and in a fact's value as JSON."""

MOST_ENTRY = 1024 * 1024
"""Bytes in an entry of a shelf as JSON, name included."""

MOST_DEPTH = 100
"""Lists and objects inside one another."""

MOST_BITS = 1024
"""Bits of a whole number; parsers give up on some thousand digits."""

ELSEWHERE = "keep what is large as an artifact, and its digest here"


def check_name(name: object, what: str) -> None:
    """Refuse what cannot name a topic, a fact or a shelf; raises WrongInput."""
    if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME or "\0" in name:
        raise WrongInput(
            f"{name!r:.80} cannot name a {what}",
            hint=f"use text of 1 to {MOST_NAME} characters",
        )
    check_text(name, what)


def check_text(text: object, what: str, most: int = MOST_TEXT) -> None:
    """Refuse what is no text of at most `most` bytes; raises WrongInput."""
    if not isinstance(text, str):
        raise WrongInput(f"a {what} is text, not {type(text).__name__}", hint="pass a str")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise WrongInput(
            f"this {what} is no Unicode: {error.reason}", hint='drop it with errors="replace"'
        ) from error
    if size > most:
        raise WrongInput(f"this {what} has {size} bytes, more than {most}", hint=ELSEWHERE)


def check_json(value: Any, what: str, most: int = MOST_TEXT) -> int:
    """Refuse what is no JSON of at most `most` bytes; returns its size.  Raises WrongInput."""
    _check(value, what, 0)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    check_text(text, what, most)
    return len(text)


def _check(value: Any, what: str, depth: int) -> None:
    """Raise WrongInput for what would not read back from JSON as it was."""
    if depth > MOST_DEPTH:
        raise WrongInput(f"this {what} is nested more than {MOST_DEPTH} deep", hint=ELSEWHERE)
    kind = type(value)
    if kind is list:
        for part in value:
            _check(part, what, depth + 1)
    elif kind is dict:
        for name, part in value.items():
            if type(name) is not str:
                raise _no_json(name, what, "a key that is")
            _check(part, what, depth + 1)
    elif not (
        kind in (str, bool, type(None))
        or (kind is int and value.bit_length() <= MOST_BITS)
        or (kind is float and math.isfinite(value))
    ):
        raise _no_json(value, what, "")


def _no_json(value: object, what: str, how: str) -> WrongInput:
    shown = (
        type(value).__name__ if isinstance(value, int) else f"{type(value).__name__} {value!r:.60}"
    )
    return WrongInput(
        f"this {what} holds {how + ' ' if how else ''}no JSON: {shown}",
        hint="use text, whole numbers, finite floats, true, false, null, lists and objects",
    )
