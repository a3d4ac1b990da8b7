"""What lies inside a node, changed by its type: nothing of a new node type can be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel

P = TypeVar("P", bound=BaseModel)
V = TypeVar("V")


def with_parts(value: V, kind: type[P], change: Callable[[P], P]) -> V:
    """Return a value with every `kind` in it changed."""
    made: Any = value
    if isinstance(value, kind):
        made = change(value)
    elif isinstance(value, BaseModel):
        made = value.model_copy(update=_changed(value, kind, change))
    elif isinstance(value, dict):
        made = value | _changed(value, kind, change)
    elif isinstance(value, tuple | list):
        made = type(value)(with_parts(inner, kind, change) for inner in value)
    return made  # type: ignore[no-any-return]


def _changed(value: Any, kind: type[P], change: Callable[[P], P]) -> dict[str, Any]:
    return {key: with_parts(inner, kind, change) for key, inner in _inside(value)}


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, BaseModel):
        yield from value
    elif isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, tuple | list):
        yield from enumerate(value)
