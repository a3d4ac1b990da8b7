"""What the measured steps say: docstrings of the standard library, cut into texts of 1 KB."""

from __future__ import annotations

import ast
import random
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

STEP_BYTES = 1024
LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "encodings"}


@cache
def prose() -> bytes:
    """Return every docstring of the standard library once, one after the other."""
    found: dict[str, None] = {}
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if not LEFT_OUT & set(path.relative_to(root).parts):
            found |= dict.fromkeys(_docstrings(path.read_bytes()))
    return "\n".join(found).encode("ascii", "replace")


def never_repeated(count: int) -> list[str]:
    """Return texts of 1 KB of which no two share anything."""
    text = prose()
    if count * STEP_BYTES > len(text):
        raise ValueError(f"the standard library has {len(text) // STEP_BYTES} steps to say")
    return [text[n * STEP_BYTES : (n + 1) * STEP_BYTES].decode() for n in range(count)]


def drawn(count: int) -> list[str]:
    """Return texts of 1 KB from random places, for more of them than there is prose."""
    text, draw = prose(), random.Random(0)
    places = (draw.randrange(len(text) - STEP_BYTES) for _ in range(count))
    return [text[place : place + STEP_BYTES].decode() for place in places]


def _docstrings(source: bytes) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield text
