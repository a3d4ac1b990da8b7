"""Kinds of work that other installed packages bring, by entry point.

An entry point of the group `agentkit.kinds` is called like its kind, or `kind.op` where a kind has
several operations, and leads to an `agentkit.kinds.kind.Kind`: to an instance, or to a class that
takes no argument.  It is loaded when a document first names that kind: not when agentkit is
imported, and not at all by programs that do not use it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from agentkit.graph.callables import guarding
from agentkit.graph.nodes import NodeBase

GROUP = "agentkit.kinds"
"""The group of entry points that lead to kinds of work."""


@dataclass(frozen=True, slots=True)
class InstalledKind:
    """A kind of another package and the model of its nodes; or why it cannot be used.

    `fault` says what is wrong with it, "" when it can be used; `hint` what helps.
    """

    kind: Any = None
    node_type: type[NodeBase] | None = None
    fault: str = ""
    hint: str = ""


def installed_kind(kind: str, op: str) -> InstalledKind | None:
    """Return the kind of another package that a tag names, loaded; None when no package has it.

    One that cannot be loaded is returned with its fault.  It must not stop a document from being
    read: `status` shows runs whose kinds cannot be used here any more.
    """
    for name in entry_names(kind, op):
        if name in _by_name():
            return _loaded(name)
    return None


def entry_names(kind: str, op: str) -> tuple[str, ...]:
    """Return what the entry point of a tag may be called, the more precise name first."""
    return (f"{kind}.{op}", kind) if op else (kind,)


@cache
def _by_name() -> dict[str, list[EntryPoint]]:
    """Return the entry points of kinds by name; packages installed later are not seen."""
    by_name: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        if not _lies_in_working_folder(entry):
            by_name.setdefault(entry.name, []).append(entry)
    return by_name


def _lies_in_working_folder(entry: EntryPoint) -> bool:
    """Return whether the package of an entry point lies in the folder we are in.

    Python looks there too, in a prompt and with `python -m`.  But nobody installed what lies there:
    it came with the folder, as a stranger's graph does, and would run as soon as that is read.
    """
    if entry.dist is None:
        return False
    return Path(str(entry.dist.locate_file(""))).resolve() == Path.cwd()


@cache
def _loaded(name: str) -> InstalledKind:
    """Load the entry point of a kind, once in a process."""
    entries = _by_name()[name]
    packages = [entry.dist.name if entry.dist else entry.value for entry in entries]
    if len(entries) > 1:
        return InstalledKind(
            fault=f"two packages bring the kind {name!r}: {' and '.join(packages)}",
            hint=f"uninstall one of them, for example: pip uninstall {packages[-1]}",
        )
    try:
        with guarding():
            target = entries[0].load()
            kind = target() if inspect.isclass(target) else target
    except Exception as error:  # noqa: BLE001  # another package's module may raise anything
        return InstalledKind(
            fault=f"the kind {name!r} of the package {packages[0]} cannot be loaded:"
            f" {type(error).__name__}: {error}",
            hint=f"upgrade it with: pip install --upgrade {packages[0]}",
        )
    node_type = getattr(kind, "node_type", None)
    if not _is_model_of(node_type, name):
        return InstalledKind(
            fault=f"the kind {name!r} of the package {packages[0]} has no node_type with"
            f" {_fields_of(name)}",
            hint=f"ask the author of {packages[0]} to mend it",
        )
    return InstalledKind(kind, node_type)


def _is_model_of(node_type: Any, name: str) -> bool:
    """Return whether a node type has the tag that the entry point `name` stands for."""
    if not (inspect.isclass(node_type) and issubclass(node_type, NodeBase)):
        return False
    return name == entry_names(*node_type.tag)[0]


def _fields_of(name: str) -> str:
    """Return the fields that a model must have for its entry point to be called so."""
    kind, _, op = name.partition(".")
    return f'kind: Literal["{kind}"]' + (f' and op: Literal["{op}"]' if op else "")
