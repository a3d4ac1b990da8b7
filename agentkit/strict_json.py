"""JSON with the same limits for reading and for writing.

Python's own reader and writer differ in what they take: NaN, half of a surrogate pair, or a depth
that the other cannot go.  What one of our programs writes, every other one must be able to read.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

MAX_DEPTH = 100
"""How deep lists and objects may stand in one another."""


class BadJson(ValueError):
    """This is not JSON within our limits; the message says why, for people."""


def loads(data: str | bytes) -> Any:
    """Return the value of a JSON text; raises BadJson.

    An object that has a key twice is refused, because one of its two values would be lost.
    """
    text = _decoded(data)
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(text)
    try:
        value = _DECODER.decode(text)
    except BadJson:
        raise
    except ValueError as error:
        raise BadJson(_plain(error)) from error
    if "\\ud" in text or "\\uD" in text:  # only an escape can bring half of a pair along
        _check_encodes(value)
    return value


def dumps(value: Any) -> bytes:
    """Return the JSON of a value in UTF-8, keys sorted; raises BadJson for what `loads` refuses."""
    try:
        text = _ENCODER.encode(value)
        encoded = text.encode()
    except RecursionError:
        raise BadJson(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeEncodeError:
        raise BadJson("a text holds half of a surrogate pair, which UTF-8 has not") from None
    except (TypeError, ValueError) as error:
        raise BadJson(_plain(error)) from error
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(text)
    return encoded


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True)


def _decoded(data: str | bytes) -> str:
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadJson(f"it is not UTF-8 at byte {error.start}") from None


def _check_depth(text: str) -> None:
    """Raise BadJson when brackets outside of strings stand deeper than we go.

    The depth is counted before anything is parsed: how deep a parser may recurse depends on limits
    that other packages change.
    """
    depth = 0
    for token in _TOKENS.finditer(text):
        bracket = token[0]
        if bracket in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise BadJson(f"it is nested deeper than {MAX_DEPTH} levels")
        elif bracket in ("]", "}"):
            depth -= 1


# Strings are skipped whole: a prompt of megabytes is one step.
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{}\]]', re.DOTALL)


def _check_encodes(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadJson("a text holds half of a surrogate pair, which UTF-8 has not") from None


def _refuse_constant(name: str) -> NoReturn:
    raise BadJson(f"it holds {name}, which JSON has not")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twin = next(key for key, count in counts.items() if count > 1)
        raise BadJson(f"the key {twin!r} stands in one object twice")
    return read


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise BadJson(f"the number {digits[:40]} is too large")
    return number


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_twins
)


def _plain(error: Exception) -> str:
    """Say what Python's reader or writer says, without what only programmers understand."""
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        return f"{error.msg} at {line}character {error.colno}"
    said = str(error)
    if "integer string conversion" in said:
        return "a whole number has more than 4,300 digits"
    if said.startswith("Out of range float"):
        return "it holds NaN or an infinity, which JSON has not"
    return said
