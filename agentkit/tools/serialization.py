"""Converts values of LangChain and LangGraph to plain JSON and back.

Stored values may come back from a public network, so a class is never imported by a name that was
read.  Only the tags in a fixed table are accepted, to which callers add the classes they expect.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, messages_from_dict
from pydantic import BaseModel

from agentkit.errors import StateCorrupt, WrongInput

Moment = TypeVar("Moment", datetime, time_of_day)

TAG = "~"
VALUE = "v"


class ValueKind(NamedTuple):
    """A class and its tag; `pack` turns its values into simpler ones, `unpack` turns them back."""

    tag: str
    cls: type
    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


def _message(packed: dict[str, Any]) -> BaseMessage:
    (message,) = messages_from_dict([packed])
    return message


def _packed_message(message: BaseMessage) -> dict[str, Any]:
    if not type(message).__module__.startswith("langchain_core."):
        raise _not_plain(message)
    return {"type": message.type, "data": message.model_dump(exclude_defaults=True)}


def _packed_time(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _packed_moment(value: datetime | time_of_day) -> str | list[Any]:
    """Return a time in ISO 8601; if it has a time zone or a fold, in a list together with these.

    ISO 8601 has only the zone's offset.  With that alone, adding a day across a change of daylight
    saving time would give another hour.  `fold` tells the two equal hours of that night apart.
    """
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    if zone is None and not value.fold:
        return value.isoformat()
    local = value.replace(tzinfo=None) if zone else value
    return [local.isoformat(), zone, value.fold]


def _unpacked_moment(cls: type[Moment], packed: Any) -> Moment:
    if isinstance(packed, str):
        return cls.fromisoformat(packed)
    text, zone, fold = packed
    moment = cls.fromisoformat(text).replace(fold=fold)
    return moment.replace(tzinfo=ZoneInfo(zone)) if zone else moment


MESSAGE = ValueKind("message", BaseMessage, _packed_message, _message)

KINDS = (
    ValueKind("float", float, repr, float),
    ValueKind("dict", dict, lambda v: [[name, part] for name, part in v.items()], dict),
    ValueKind("tuple", tuple, list, tuple),
    ValueKind("set", set, lambda v: sorted(v, key=repr), set),
    ValueKind("frozenset", frozenset, lambda v: sorted(v, key=repr), frozenset),
    ValueKind("deque", deque, lambda v: [list(v), v.maxlen], lambda v: deque(*v)),
    ValueKind("bytes", bytes, lambda v: base64.b64encode(v).decode(), base64.b64decode),
    ValueKind("datetime", datetime, _packed_moment, partial(_unpacked_moment, datetime)),
    ValueKind("date", date, date.isoformat, date.fromisoformat),
    ValueKind("time", time_of_day, _packed_moment, partial(_unpacked_moment, time_of_day)),
    ValueKind("timedelta", timedelta, _packed_time, lambda v: timedelta(*v)),
    ValueKind("decimal", Decimal, str, Decimal),
    ValueKind("uuid", UUID, str, UUID),
    ValueKind("path", type(Path()), str, Path),
    ValueKind(
        "document", Document, lambda v: v.model_dump(exclude_defaults=True), lambda v: Document(**v)
    ),
)


class Values:
    """Encodes and decodes values of a fixed table of classes, and of those in `allow`."""

    def __init__(self, kinds: Iterable[ValueKind] = (), allow: Sequence[type] = ()) -> None:
        all_kinds = (*KINDS, MESSAGE, *kinds, *map(_kind_of_class, allow))
        self._by_class = {kind.cls: kind for kind in all_kinds}
        self._by_tag = {kind.tag: kind for kind in all_kinds}

    def encode(self, value: Any) -> Any:
        """Return a value as plain JSON; raises WrongInput for classes that are not allowed."""
        try:
            return self._encode(value)
        except RecursionError as error:
            raise WrongInput(
                "a value holds itself, or is nested too deep to be stored",
                hint="keep flat values in the state",
            ) from error

    def _encode(self, value: Any) -> Any:
        """Return a value as plain JSON; values of other classes become `{TAG: ..., VALUE: ...}`."""
        cls = type(value)
        if cls in (str, int, bool, type(None)) or (cls is float and math.isfinite(value)):
            return value
        if cls is list:
            return [self._encode(part) for part in value]
        if cls is dict and TAG not in value and all(type(name) is str for name in value):
            return {name: self._encode(part) for name, part in value.items()}
        if isinstance(value, BaseException):
            return repr(value)  # as LangGraph's own serializer does
        kind = self._by_class.get(cls) or (MESSAGE if isinstance(value, BaseMessage) else None)
        if kind is None:
            raise _not_plain(value)
        return {TAG: kind.tag, VALUE: self._encode(kind.pack(value))}

    def decode(self, plain: Any) -> Any:
        """Return the value of what `encode` made; raises StateCorrupt for anything else."""
        if isinstance(plain, list):
            return [self.decode(part) for part in plain]
        if not isinstance(plain, dict):
            return plain
        if TAG not in plain:
            return {name: self.decode(part) for name, part in plain.items()}
        tag = plain[TAG]
        value = self.decode(plain.get(VALUE))
        kind = self._by_tag.get(tag) if isinstance(tag, str) else None
        if kind is None:
            raise StateCorrupt(
                f"a value of kind {tag!r:.80} was stored, and is not among those that may be read",
                hint="pass its class in allow=[...]",
            )
        try:
            return kind.unpack(value)
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise StateCorrupt(f"a stored value is no {tag}: {error}") from error

    # -- as LangGraph's SerializerProtocol -------------------------------------------------------

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        """Return a value as JSON text."""
        return "json", json.dumps(self.encode(value), allow_nan=False).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return the value of what `dumps_typed` made; raises StateCorrupt."""
        kind, text = data
        if kind != "json":
            raise StateCorrupt(f"a value was stored as {kind!r}, not as plain JSON")
        return self.decode(json.loads(text))


def _kind_of_class(cls: type) -> ValueKind:
    """Return how values of a pydantic model, dataclass or enum are stored; raises WrongInput."""
    tag = f"{cls.__module__}:{cls.__qualname__}"
    if issubclass(cls, Enum):
        return ValueKind(tag, cls, lambda v: v.value, cls)
    if issubclass(cls, BaseModel):
        return ValueKind(tag, cls, lambda v: v.model_dump(), cls.model_validate)
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        return ValueKind(
            tag,
            cls,
            pack=lambda value: {name: getattr(value, name) for name in names},
            unpack=lambda fields: cls(**fields),
        )
    raise WrongInput(
        f"{cls.__name__} cannot be stored as plain JSON",
        hint="allow pydantic models, dataclasses and enums",
    )


def _not_plain(value: object) -> WrongInput:
    return WrongInput(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be stored as plain JSON",
        hint="keep text, numbers, lists and dicts in the state, or pass its class in allow=[...]",
    )
