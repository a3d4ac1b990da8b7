"""JSON schemas (draft 2020-12) from anybody, and values from anybody, checked in bounded time.

A schema is looked through before it is used: its size, its references, its patterns.  A value is
checked right here where schema and value are so small and plain that the work is linear, and in a
child that is ended after a second where they are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

from agentkit import strict_json
from agentkit.bounded import BoundedChild, OutOfBounds
from agentkit.errors import brief
from agentkit.strict_json import BadJson

MAX_SCHEMA_BYTES = 64 << 10
MAX_SUBSCHEMAS = 1000
MAX_TYPES = 7
MAX_WRITTEN_OUT = 10_000
MAX_VALUE_BYTES = 16 << 20
SMALL = 100_000
"""Subschemas times bytes of the value, up to which a plain check is done in this process."""

_ONE = (
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_COSTLY = frozenset(
    (
        "$anchor",
        "$dynamicAnchor",
        "$dynamicRef",
        "$id",
        "pattern",
        "patternProperties",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    )
)
"""Keywords whose work is not linear, or not known without doing it."""


def fault_of(schema: object) -> str:
    """Say why this is not a JSON schema that we check by, "" when it is one."""
    try:
        text = _written(schema)
    except BadJson as error:
        return str(error)
    if len(text) > MAX_SCHEMA_BYTES:
        return f"it is longer than {MAX_SCHEMA_BYTES >> 10} KiB"
    return _fault(text)


def unsupported_in(schema: object) -> str:
    """Say why no answer can be held to a sound schema in bounded time, "" when it can.

    RE2 matches in linear time; it has no lookaround and no backreferences.  A grammar is made of
    the whole schema, references written out.
    """
    if _written_out(schema, circle=1) > MAX_WRITTEN_OUT:
        return f"with its references written out it has more than {MAX_WRITTEN_OUT} schemas"
    for subschema in _subschemas(schema):
        for pattern in _patterns(subschema):
            fault = _pattern_fault(pattern)
            if fault:
                return (
                    f"the pattern {pattern[:100]!r} cannot be matched in linear time ({fault}):"
                    " write it without lookaround and backreferences"
                )
    return ""


def mismatch(data: bytes, schema: Mapping[str, Any]) -> str:
    """Say how the JSON `data` does not fit a schema, "" when it does.

    Blocks for at most a few milliseconds where `is_small`, else as long as `bounded` says.
    """
    if len(data) > MAX_VALUE_BYTES:
        return f"it is longer than {MAX_VALUE_BYTES >> 20} MiB"
    text = _written(schema)
    if len(data) * _expanded(text) <= SMALL:
        return _mismatch(data, text)
    try:
        said = _CHECKER.ask({"data": data.decode(errors="replace"), "schema": text.decode()})
    except OutOfBounds as over:
        return f"it could not be checked: {over}"
    return str(said)


def is_small(size: int, schema: Mapping[str, Any]) -> bool:
    """Whether a value of `size` bytes is checked so fast that an event loop may wait for it."""
    return size * _expanded(_written(schema)) <= SMALL


def rewritten(
    schema: Mapping[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Return a schema in which `change` was applied to every schema in it, and then to itself."""

    def changed(part: Any) -> Any:
        return rewritten(part, change) if isinstance(part, Mapping) else part

    copy = dict(schema)
    for key, value in schema.items():
        if key in _ONE:
            copy[key] = changed(value)
        elif key in _LISTS and isinstance(value, list):
            copy[key] = [changed(part) for part in value]
        elif key in _MAPS and isinstance(value, Mapping):
            copy[key] = {name: changed(part) for name, part in value.items()}
    return change(copy)


_CHECKER = BoundedChild("agentkit.json_schemas")


def _written(schema: object) -> bytes:
    return strict_json.dumps(schema)


# -- looking through a schema --------------------------------------------------------------------


@lru_cache(maxsize=256)
def _fault(text: bytes) -> str:
    """Say why a text is not a JSON schema that can be used, "" if it is one."""
    from jsonschema import Draft202012Validator, FormatChecker, SchemaError

    schema = strict_json.loads(text)
    for number, subschema in enumerate(_subschemas(schema), 1):
        if number > MAX_SUBSCHEMAS:
            return f"it has more than {MAX_SUBSCHEMAS} schemas in it"
        if isinstance(subschema.get("type"), list) and len(subschema["type"]) > MAX_TYPES:
            return f"it has a type of more than {MAX_TYPES} types"  # they are compared in pairs
        reference = subschema.get("$ref", "")
        if isinstance(reference, str) and reference.startswith("#/"):
            try:
                _at(schema, reference)
            except (LookupError, ValueError):  # of int(), for thousands of digits
                return f"its $ref {reference[:100]!r} leads nowhere"
    try:
        # Without formats: a pattern is not compiled by Python's own engine, which can blow up.
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
    except SchemaError as error:
        return brief(error.message)
    return next(filter(None, (_no_regex(s) for s in _subschemas(schema))), "")


def _no_regex(subschema: Mapping[str, Any]) -> str:
    """Say which pattern no engine reads, "" when one does."""
    import re

    for pattern in _patterns(subschema):
        try:
            if _pattern_fault(pattern):
                re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            return f"{pattern[:100]!r} is not a 'regex': {error}"
    return ""


def _subschemas(schema: object) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and every schema in it."""
    waiting = [schema]
    while waiting:
        subschema = waiting.pop()
        if isinstance(subschema, Mapping):
            yield subschema
            waiting += _children(subschema)


def _children(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the schemas that stand directly in a schema."""
    for key in _ONE:
        if key in schema:
            yield schema[key]
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            yield from schema[key]
    for key in _MAPS:
        if isinstance(schema.get(key), Mapping):
            yield from schema[key].values()


def _patterns(schema: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(schema.get("pattern"), str):
        yield schema["pattern"]
    if isinstance(schema.get("patternProperties"), Mapping):
        yield from schema["patternProperties"]


def _at(schema: Any, reference: str) -> Any:
    """Return what a reference like `#/$defs/name` leads to; raises LookupError."""
    from urllib.parse import unquote

    place = schema
    for part in reference.removeprefix("#").split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        place = place[int(key)] if isinstance(place, list) and key.isdecimal() else _of(place, key)
    return place


def _of(place: Any, key: str) -> Any:
    if not isinstance(place, Mapping):
        raise KeyError(key)
    return place[key]


@lru_cache(maxsize=256)
def _expanded(text: bytes) -> float:
    """Return how many schemas it is with every reference written out.

    That many are applied to each part of a value at most.  Infinite where references go round, or
    where a keyword's work is not linear.
    """
    schema = strict_json.loads(text)
    if any(not _COSTLY.isdisjoint(subschema) for subschema in _subschemas(schema)):
        return math.inf
    return _written_out(schema, circle=math.inf)


def _written_out(schema: Any, *, circle: float) -> float:
    """Count schemas with references written out; one that leads back to itself counts `circle`."""
    known: dict[str, float] = {}

    def count(subschema: Any) -> float:
        """Return how many checks a subschema causes, references followed."""
        if not isinstance(subschema, Mapping):
            return 1
        applied = {key: value for key, value in subschema.items() if key not in _DEFINITIONS}
        total = 1 + sum(map(count, _children(applied)))
        if isinstance(subschema.get("enum"), list):
            total += len(subschema["enum"])
        if "$ref" in subschema:
            total += follow(subschema["$ref"])
        return total

    def follow(reference: Any) -> float:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return circle
        if reference not in known:
            known[reference] = circle  # while it is counted
            with suppress(LookupError, ValueError):
                known[reference] = count(_at(schema, reference))
        return known[reference]

    try:
        return count(schema)
    except RecursionError:
        return math.inf


_DEFINITIONS = ("$defs", "definitions")


# -- checking a value ----------------------------------------------------------------------------


_NO_SCHEMA = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What applying something that is no schema raises: a reference may lead to anything."""


def _mismatch(data: bytes | str, text: bytes) -> str:
    """Say how a JSON text does not fit a schema, "" if it does; takes as long as it takes."""
    from jsonschema import ValidationError
    from jsonschema.exceptions import UnknownType
    from referencing.exceptions import Unresolvable

    try:
        value = strict_json.loads(data)
        _validator(text).validate(value)
    except BadJson as error:
        return f"it is not JSON: {brief(str(error))}"
    except ValidationError as error:
        return brief(error.message)
    except RecursionError:
        return "the schema's references go round in a circle"
    except (Unresolvable, UnknownType, *_NO_SCHEMA) as error:
        return f"the schema cannot be applied: {brief(str(error))}"
    return ""


@lru_cache(maxsize=64)
def _validator(text: bytes) -> Any:
    """An empty registry, because the default one would fetch a remote `$ref`."""
    from referencing import Registry

    return _linear_class()(strict_json.loads(text), registry=Registry())


@cache
def _linear_class() -> Any:
    """Return the validator of draft 2020-12 with patterns matched by RE2."""
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.validators import extend

    def pattern(
        _validator: Any, pattern: str, value: Any, _schema: Any
    ) -> Iterator[ValidationError]:
        if isinstance(value, str) and not _search(pattern, value):
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    def pattern_properties(
        validator: Any, patterns: Mapping[str, Any], value: Any, _schema: Any
    ) -> Iterator[ValidationError]:
        """Check properties by patterns as `jsonschema` does, but matched by RE2."""
        if isinstance(value, dict):
            for pattern, subschema in patterns.items():
                for name, item in value.items():
                    if _search(pattern, name):
                        yield from validator.descend(
                            item, subschema, path=name, schema_path=pattern
                        )

    def additional_properties(
        validator: Any, allowed: Any, value: Any, schema: Mapping[str, Any]
    ) -> Iterator[ValidationError]:
        """Check the other properties as `jsonschema` does, but matched by RE2."""
        if not isinstance(value, dict):
            return
        patterns = schema.get("patternProperties", {})
        for name in value.keys() - schema.get("properties", {}).keys():
            if any(_search(pattern, name) for pattern in patterns):
                continue
            if isinstance(allowed, dict):
                yield from validator.descend(value[name], allowed, path=name)
            elif allowed is False:
                yield ValidationError(f"{name!r} is not a property that the schema has")

    linear = {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional_properties,
    }
    made: Any = extend(Draft202012Validator, linear)  # type: ignore[no-untyped-call]
    return made


def _search(pattern: str, text: str) -> bool:
    """Python's own engine only where a graph was stored before RE2 was asked for."""
    import re

    if not _pattern_fault(pattern):
        return _matcher(pattern)(text) is not None
    return re.search(pattern, text) is not None


@lru_cache(maxsize=1024)
def _pattern_fault(pattern: str) -> str:
    """Say why RE2 cannot match a pattern, "" if it can."""
    import re2

    try:
        _matcher(pattern)
    except re2.error as error:
        said = error.args[0] if error.args else b""
        return said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    except UnicodeError:
        return "it is not Unicode"
    return ""


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> Callable[[str], Any]:
    import re2

    options = re2.Options()
    options.log_errors = False
    found: Callable[[str], Any] = re2.compile(_without_u(pattern), options).search
    return found


def _without_u(pattern: str) -> str:
    r"""Write the `\uXXXX` of ECMA 262, which JSON Schema follows, as RE2 has it."""
    import re

    return re.sub(r"(?<!\\)((?:\\\\)*)\\u([0-9a-fA-F]{4})", r"\1\\x{\2}", pattern)


def main() -> None:
    """Answer {"data", "schema"} by what does not fit, see `mismatch`."""
    from agentkit.bounded import serve

    serve(lambda request: _mismatch(request["data"], request["schema"].encode()))


if __name__ == "__main__":
    main()
