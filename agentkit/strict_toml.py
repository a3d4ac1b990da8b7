"""TOML whose keys are no deeper than documents of ours ever are, so that reading takes linear time.

Python's own reader takes the square of a dotted key's length (`a.a.a.a = 1`): some seconds for
60 KB, and hours for a megabyte.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

MAX_KEY_PARTS = 100
"""How many parts a dotted key may have; values of strict JSON nest as deep at most."""

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(
    # A key begins a line, a table's head, or an entry of an inline table.
    rf"(?:^|[\[{{,])[ \t]*(?:{_PART}[ \t]*\.[ \t]*){{{MAX_KEY_PARTS}}}",
    re.MULTILINE,
)


def loads(text: str) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises ValueError for what is not TOML, RecursionError for what nests too deep, be it by a key
    of many parts or by lists and inline tables.
    """
    long_key = _LONG_KEY.search(text)
    if long_key:
        line = text.count("\n", 0, long_key.start()) + 1
        raise RecursionError(f"a key has more than {MAX_KEY_PARTS} parts (at line {line})")
    return tomllib.loads(text)
