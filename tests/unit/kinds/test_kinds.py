"""A kind of work is one file: nothing else in the package knows one kind from another."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import agentkit
from agentkit.errors import UnknownKind
from agentkit.graph.builder import JobGraph
from agentkit.graph.nodes import NodeBase, PaidNode
from agentkit.graph.registry import OUR_MODELS
from agentkit.graph.unknown import UnknownNode
from agentkit.kinds.kind import BoughtKind, LocalKind
from agentkit.kinds.registry import _OURS, bought_kind, kind_of

PACKAGE = Path(agentkit.__file__).parent
KIND_FILES = ("infer", "local", "request", "source", "split", "sql", "train")
MODELS = {model.__name__ for model in OUR_MODELS.values()}
CLASSES = {type(kind).__name__ for kind in _OURS.values()}
TAGS = {name for tag in OUR_MODELS for name in tag if name}
WORDS_FOR_TAGS = {"kind", "op", "tag", "sort"}
ROOMS_OF_KINDS = ("kinds", "graph")
TABLES = {"pool/services.py", "testing/fakes.py"}
"""The files with a table of kinds: that of the pool, which sells them, and the fake provider's."""

SEEN = {ast.Attribute, ast.Compare, ast.Dict, ast.ImportFrom, ast.Match, ast.Name}
"""What a rule here looks at: a third of what stands in the code."""


@cache
def code() -> dict[str, tuple[ast.AST, ...]]:
    """Return what a rule looks at in each file outside of the rooms of kinds."""
    return {
        name: tuple(node for node in ast.walk(ast.parse(path.read_text())) if type(node) in SEEN)
        for path in PACKAGE.rglob("*.py")
        if (name := path.relative_to(PACKAGE).as_posix()).split("/")[0] not in ROOMS_OF_KINDS
    }


def files_with(wanted: Callable[[ast.AST], bool]) -> set[str]:
    return {name for name, parts in code().items() if any(map(wanted, parts))}


def names_a_kind(node: ast.AST) -> bool:
    """Whether a piece of code names the model or the file of one kind."""
    if isinstance(node, ast.ImportFrom):
        named = {alias.name for alias in node.names}
        of_kinds = {f"agentkit.kinds.{file}" for file in KIND_FILES}
        from_kinds = node.module == "agentkit.kinds" and named & set(KIND_FILES)
        return bool(node.module in of_kinds or from_kinds or named & MODELS)
    if isinstance(node, ast.Attribute):
        return node.attr in MODELS
    return isinstance(node, ast.Name) and node.id in MODELS


def compares_a_tag(node: ast.AST) -> bool:
    """Whether a piece of code compares a kind or an operation with the name of one."""
    if isinstance(node, ast.Compare):
        compared: list[ast.AST] = [node.left, *node.comparators]
    elif isinstance(node, ast.Match):
        compared = [node.subject, *(case.pattern for case in node.cases)]
    else:
        return False
    parts = [part for side in compared for part in ast.walk(side)]
    about = {getattr(part, "id", getattr(part, "attr", "")) for part in parts}
    constants = {part.value for part in parts if isinstance(part, ast.Constant)}
    return bool(about & WORDS_FOR_TAGS and constants & TAGS)


def test_only_the_rooms_of_kinds_know_one_kind_from_another() -> None:
    assert files_with(names_a_kind) == set()
    assert files_with(compares_a_tag) == set()


@pytest.mark.parametrize(
    "text",
    [
        "from agentkit.graph.nodes import InferNode",
        "isinstance(node, nodes.SqlNode)",
        "from agentkit.kinds import train",
        "from agentkit.kinds.local import Local",
        "if node.kind == 'infer': ...",
        "if node.kind in ('infer', 'train'): ...",
        "match task.kind:\n  case 'data': ...",
    ],
)
def test_naming_a_kind_would_be_noticed(text: str) -> None:
    assert any(names_a_kind(node) or compares_a_tag(node) for node in ast.walk(ast.parse(text)))


def test_tables_of_kinds_are_those_that_are_allowed() -> None:
    def is_table(node: ast.AST) -> bool:
        keys = node.keys if isinstance(node, ast.Dict) else ()
        named = [key for key in keys if isinstance(key, ast.Constant) and key.value in TAGS]
        return len(named) > 1 and len(named) == len(keys)

    assert files_with(is_table) == TABLES


# -- the registry --------------------------------------------------------------------------------


def test_every_model_has_a_kind_of_its_sort() -> None:
    assert _OURS.keys() == OUR_MODELS.keys()
    for tag, kind in _OURS.items():
        model = OUR_MODELS[tag]
        assert kind.node_type is model
        assert isinstance(kind, BoughtKind if issubclass(model, PaidNode) else LocalKind)
    files = {type(kind).__module__ for kind in _OURS.values()}
    assert files == {f"agentkit.kinds.{file}" for file in KIND_FILES}


def test_kinds_have_no_state() -> None:
    assert all(not vars(kind) for kind in _OURS.values())


def test_the_kind_of_a_later_model_is_that_of_its_tag() -> None:
    class LaterNode(OUR_MODELS["infer", ""]):  # type: ignore[misc]
        tempo: str = "slow"

    graph = JobGraph("g")
    graph.infer("a", model="m", prompt="x")
    node = LaterNode.model_validate(dict(graph.freeze().nodes[0]))
    assert kind_of(node) is _OURS["infer", ""]


def test_what_runs_here_is_not_bought() -> None:
    graph = JobGraph("g")
    graph.data("rows", source="x.csv")
    with pytest.raises(AssertionError, match="rows"):
        bought_kind(graph.freeze().by_name["rows"])


def test_a_node_of_no_kind_is_an_error_with_a_hint() -> None:
    class Lonely(NodeBase):
        pass

    unknown = UnknownNode.of({"kind": "fly", "name": "a"})
    assert unknown
    for node in (unknown, Lonely(name="a")):
        with pytest.raises(UnknownKind, match="node 'a'") as raised:
            kind_of(node)
        assert raised.value.hint
