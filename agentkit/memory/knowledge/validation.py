"""Validates names, texts and JSON before they are stored.

A value is refused if it is too large, or if it would not read back as it was: NaN, tuples, keys
that are not text, lone surrogates, and nesting too deep for parsers.
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
"""Bytes in an entry of a key-value store as JSON, name included."""

MOST_DEPTH = 100
"""How deep lists and objects may be nested."""

MOST_BITS = 1024
"""Bits of a whole number; parsers refuse numbers of some thousand digits."""

ELSEWHERE = "keep what is large as an artifact, and its digest here"


def check_name(name: object, what: str) -> None:
    """Check the name of a topic, a fact or a shelf, as `what` says; raises WrongInput."""
    if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME or "\0" in name:
        raise WrongInput(
            f"{name!r:.80} cannot name a {what}",
            hint=f"use text of 1 to {MOST_NAME} characters",
        )
    check_text(name, what)


def check_text(text: object, what: str, most: int = MOST_TEXT) -> None:
    """Check that a value is text of at most `most` bytes in UTF-8; raises WrongInput."""
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
    """Check that a value is JSON of at most `most` bytes, and return its size in characters.

    Raises WrongInput.
    """
    _check_value(value, what, 0)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    check_text(text, what, most)
    return len(text)


def _check_value(value: Any, what: str, depth: int) -> None:
    """Raise WrongInput for a value that would not read back from JSON as it was.

    Exact types are compared: a subclass of `dict` or `str` would read back as the plain type.
    """
    if depth > MOST_DEPTH:
        raise WrongInput(f"this {what} is nested more than {MOST_DEPTH} deep", hint=ELSEWHERE)
    if type(value) is list:
        for part in value:
            _check_value(part, what, depth + 1)
    elif type(value) is dict:
        for name, part in value.items():
            if type(name) is not str:
                raise _not_json(name, what, is_key=True)
            _check_value(part, what, depth + 1)
    elif not _is_scalar(value):
        raise _not_json(value, what)


def _is_scalar(value: Any) -> bool:
    """Whether a value is text, a truth value, null, or a number that JSON parsers read exactly."""
    if type(value) is int:
        return value.bit_length() <= MOST_BITS
    if type(value) is float:
        return math.isfinite(value)
    return type(value) in (str, bool, type(None))


def _not_json(value: object, what: str, *, is_key: bool = False) -> WrongInput:
    """Return the error for a value or a key that is not JSON; a large number is not printed."""
    shown = type(value).__name__
    if not isinstance(value, int):
        shown += f" {value!r:.60}"
    return WrongInput(
        f"this {what} holds {'a key that is ' if is_key else ''}no JSON: {shown}",
        hint="use text, whole numbers, finite floats, true, false, null, lists and objects",
    )
