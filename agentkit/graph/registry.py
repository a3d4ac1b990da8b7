"""Which model reads a node of a document: it is looked up by the node's kind and operation.

The models of this package form a union, which pydantic reads quickly.  A document of any other kind
is read by the model that an installed package brings for it; without one, it is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field, GetCoreSchemaHandler, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, core_schema

from agentkit.errors import UnknownKind
from agentkit.graph.installed import GROUP, InstalledKind, installed_kind
from agentkit.graph.nodes import (
    InferNode,
    LocalNode,
    NodeBase,
    RequestNode,
    SourceNode,
    SplitNode,
    SqlNode,
    Tag,
    TrainNode,
)
from agentkit.graph.unknown import UnknownNode

_DataNode = Annotated[SourceNode | SqlNode | SplitNode, Field(discriminator="op")]
_OurNode = Annotated[
    InferNode | TrainNode | _DataNode | LocalNode | RequestNode, Field(discriminator="kind")
]

OUR_MODELS: Mapping[Tag, type[NodeBase]] = {
    model.tag: model
    for model in (
        InferNode,
        TrainNode,
        SourceNode,
        SqlNode,
        SplitNode,
        LocalNode,
        RequestNode,
    )
}
"""The models of this package, by kind and operation."""

OUR_KINDS: Mapping[str, tuple[str, ...]] = {
    kind: tuple(op for other, op in OUR_MODELS if other == kind and op) for kind, _ in OUR_MODELS
}
"""The kinds of this package, each with its operations; none where a kind is only one."""


# -- reading -------------------------------------------------------------------------------------


class _ReadByTag:
    """Has pydantic read a field by `read_node`, and write it by its own model.

    The JSON schema of the field stays that of our models: it must not depend on what is installed.
    """

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            read_node,
            handler.generate_schema(_OurNode),
            serialization=core_schema.simple_ser_schema("any"),
        )


Node: TypeAlias = Annotated[NodeBase, _ReadByTag()]
"""A node of any kind, as a field of a model."""


def read_node(value: Any, read_ours: ValidatorFunctionWrapHandler) -> Any:
    """Return the node of a document; one of a kind that is not installed is kept as it is.

    `read_ours` reads the kinds of this package, and refuses anything else with an error that says
    what is wrong with it.
    """
    if isinstance(value, NodeBase):
        return value
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        return read_ours(value)
    op = value.get("op")
    ours = OUR_KINDS.get(kind)
    if ours is not None and (not ours or op in ours or not isinstance(op, str)):
        return read_ours(value)
    installed = installed_kind(kind, op if isinstance(op, str) else "")
    if installed is not None and installed.node_type is not None:
        return installed.node_type.model_validate(value)
    return UnknownNode.of(value) or read_ours(value)


def one_of(names: Iterable[str]) -> str:
    """Return names as a hint lists them: `"source", "sql" or "split"`."""
    *others, last = (f'"{name}"' for name in names)
    return f"{', '.join(others)} or {last}" if others else last


def branches_of(document: Any) -> tuple[str, ...]:
    """Return what pydantic writes before a field of a node's document in the place of an error.

    It is the way through our union: `("infer",)` or `("data", "sql")`; nothing for other packages'
    models, which are not in it.
    """
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if not isinstance(kind, str) or kind not in OUR_KINDS:
        return ()
    return (kind, str(document.get("op"))) if OUR_KINDS[kind] else (kind,)


# -- kinds that are not ours ---------------------------------------------------------------------


def outside_kind(node: NodeBase) -> Any:
    """Return the kind that another package brings for a node; raises UnknownKind without one."""
    if isinstance(node, UnknownNode):
        raise unknown_kind(node)
    installed = installed_kind(*type(node).tag)
    if installed is None or installed.node_type is not type(node):
        raise _not_registered(node, installed)
    return installed.kind


def check_registered(node: NodeBase) -> None:
    """Raise UnknownKind for a node whose document would not be read back as that node."""
    if OUR_MODELS.get(type(node).tag) is not type(node):
        outside_kind(node)


def unknown_kind(node: UnknownNode) -> UnknownKind:
    """Return the error of planning or running a node whose kind is not installed."""
    installed = installed_kind(node.kind, node.op)
    if installed is not None:
        return UnknownKind(f"node {node.name!r}: {installed.fault}", hint=installed.hint)
    if node.kind in OUR_KINDS:  # ours have their operations, and a package may bring another
        what = "op"
        value = node.op
        known = one_of(OUR_KINDS[node.kind])
        entry = f"{node.kind}.{node.op}"
    else:
        what = "kind"
        value = node.kind
        known = one_of(OUR_KINDS)
        entry = node.kind
    return UnknownKind(
        f"node {node.name!r}: there is no such {what}: {value!r}",
        hint=f"write {what} = {known}, or install the package whose entry point in {GROUP!r} is"
        f" called {entry!r}",
    )


def _not_registered(node: NodeBase, installed: InstalledKind | None) -> UnknownKind:
    """Return the error of a node that was built from a model which its kind is not read by."""
    if installed is not None and installed.fault:
        return UnknownKind(f"node {node.name!r}: {installed.fault}", hint=installed.hint)
    return UnknownKind(
        f"node {node.name!r} is a {type(node).__qualname__}, which no installed package registers",
        hint=f"name its kind in an entry point of the group {GROUP!r}, and install the package",
    )
