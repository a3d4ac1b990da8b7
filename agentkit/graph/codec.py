"""Graphs as TOML, JSON and Mermaid: the same document written down."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from agentkit import strict_json, strict_toml
from agentkit.errors import GraphError, WrongInput
from agentkit.file_io import read_bytes, write_text
from agentkit.graph.conditions import Condition
from agentkit.graph.frozen import FrozenGraph
from agentkit.graph.nodes import Name
from agentkit.graph.registry import OUR_KINDS, Node, branches_of, one_of

MAX_BYTES = 64 << 20
"""The largest graph file that is read: some 100,000 nodes."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    nodes: list[Node]


def decode(document: Any) -> FrozenGraph:
    """Build a graph from its document (plain dicts and lists); raises GraphError."""
    try:
        read = _Document.model_validate(document)
    except ValidationError as wrong:
        raise as_wrong_input("the graph", wrong, document) from wrong
    return FrozenGraph.build(read.name, tuple(read.nodes))


def encode(graph: FrozenGraph) -> dict[str, Any]:
    """Return the document of a graph, values that are defaults left out."""
    return graph.model_dump(mode="json", exclude_defaults=True)


def load(path: Path) -> FrozenGraph:
    """Read a `.toml` or `.json` graph; raises GraphError with the file's name."""
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8-sig")
        document = strict_toml.loads(text) if path.suffix == ".toml" else strict_json.loads(text)
    except (ValueError, RecursionError) as wrong:
        if isinstance(wrong, WrongInput):
            raise
        raise GraphError(
            f"{path} cannot be read as {path.suffix or 'JSON'}: {wrong}",
            hint="write a graph to a file with graph.save('graph.toml') to see its shape",
        ) from wrong
    return decode(document)


def save(graph: FrozenGraph, path: Path) -> None:
    """Write a graph as `.toml` or `.json`, chosen by the suffix.

    Raises WrongInput for what TOML lacks, StoreUnavailable where it cannot be written.
    """
    if path.suffix == ".toml":
        document = encode(graph)
        # TOML reads a carriage return in a multi-line string as the end of a line.
        readable = "\\r" not in json.dumps(document)
        try:
            text = tomli_w.dumps(document, multiline_strings=readable)
        except TypeError as wrong:  # the document is JSON, and null is all that TOML lacks of it
            raise WrongInput(
                f"{path} cannot be written: a schema or a parameter holds null, which TOML has not",
                hint=f"save it as {path.with_suffix('.json').name}",
            ) from wrong
    else:
        text = json.dumps(encode(graph), indent=2, ensure_ascii=False) + "\n"
    write_text(path, text)


def to_mermaid(graph: FrozenGraph) -> str:
    """Return a Mermaid flowchart; node ids are positions, so that any name is safe."""
    number = {node.name: index for index, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    lines += [f'  n{number[node.name]}["{node.name}<br/>{_label(node)}"]' for node in graph.nodes]
    for node in graph.nodes:
        to = f"n{number[node.name]}"
        above = dict.fromkeys(ref.node for _, ref, _ in node.reads())
        lines += [f"  n{number[name]} --> {to}" for name in above]
        lines += [f"  n{number[c.ref.node]} -.->|{_plain(_test(c))}| {to}" for c in node.when]
    return "\n".join(lines) + "\n"


def _label(node: Node) -> str:
    _, op = node.tag
    return op or node.kind


def _test(condition: Condition) -> str:
    return f"{condition.key} {condition.test}".lstrip()


def _plain(text: str) -> str:
    """Write everything that could end a label, or mean something in it, as its number."""
    return re.sub(r"[^\w .-]", lambda found: f"#{ord(found[0])};", text)


def as_wrong_input(what: str, error: ValidationError, document: Any) -> WrongInput:
    """Return our error for pydantic's, naming the first field at fault; unknown keys before all.

    Of the errors of a union's branches, the deepest is of the branch that was meant.
    """
    first = max(
        error.errors(include_url=False),
        key=lambda one: (one["type"] == "extra_forbidden", len(one["loc"])),
    )
    loc = first["loc"]
    if len(loc) > 1 and loc[0] == "nodes":
        number = int(loc[1])
        what = f"node {_name_of(document, number)!r}"
        document = _at(_at(document, "nodes"), number)
        loc = loc[2 + len(branches_of(document)) :]
    where = ".".join(_place(loc, document, missing=first["type"] == "missing"))
    return WrongInput(
        f"{what}: {f'{where}: ' if where else ''}{_said(first)}",
        hint=_hint(first) or (f"mend {where!r}" if where else _SHAPE),
    )


def _place(loc: Sequence[int | str], document: Any, *, missing: bool) -> list[str]:
    """Leave out of a place what is not in the document: pydantic's names for unions' branches."""
    place = []
    for part in loc:
        inner = _at(document, part)
        if inner is not _NOTHING:
            document = inner
            place.append(str(part))
    return [*place, str(loc[-1])] if missing else place


_NOTHING = object()


def _at(document: Any, part: int | str) -> Any:
    if isinstance(document, Mapping):
        return document.get(part, _NOTHING)
    if isinstance(document, list | tuple) and isinstance(part, int) and part < len(document):
        return document[part]
    return _NOTHING


def _said(error: ErrorDetails) -> str:
    """Return what is wrong with a part of a document, in our words."""
    context = error.get("ctx", {})
    match error["type"]:
        case "union_tag_not_found":
            return f"it does not say which {_tag(context)}"
        case "union_tag_invalid":
            return f"there is no such {_tag(context)}: {context['tag']!r}"
        case "value_error":
            return str(context["error"])
        case kind:
            return _SAID.get(kind, error["msg"])


def _hint(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return _TAGS[_tag(context)]
    return _MODELS.get(context.get("class_name", ""), "")


def _tag(context: Mapping[str, Any]) -> str:
    return str(context["discriminator"]).strip("'")


_SHAPE = "write a graph to a file with graph.save('graph.toml') to see its shape"
_SAID = {
    "extra_forbidden": "this key is not known here",
    "missing": "it is missing",
    "tuple_type": "it must be a list",
    "model_type": "it must be keys and values",
    "model_attributes_type": "it must be keys and values",
}
_TAGS = {
    "kind": f"write kind = {one_of(OUR_KINDS)}",
    "op": f"write op = {one_of(OUR_KINDS['data'])}",
    "check": 'write check = "schema", "redundant", "named" or "callable"',
}
_MODELS = {
    "InputRef": 'write a ref as { node = "name" }',
    "Condition": 'write a condition as { ref = { node = "name" }, op = "below", value = 0.8 }',
    "Timeouts": "write seconds, or { submit = 5, execute = 60 }",
}


def _name_of(document: Any, number: int) -> str:
    try:
        return str(document["nodes"][number]["name"])
    except (KeyError, TypeError, IndexError):
        return f"number {number + 1}"
