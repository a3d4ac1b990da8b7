"""Which kind a node is of: one of this package, or one that another package brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentkit.errors import UnknownKind
from agentkit.graph.nodes import NodeBase, PaidNode, Tag
from agentkit.graph.registry import outside_kind
from agentkit.kinds.infer import Infer
from agentkit.kinds.kind import BoughtKind, Kind, LocalKind
from agentkit.kinds.local import Local
from agentkit.kinds.request import Request
from agentkit.kinds.source import Source
from agentkit.kinds.split import Split
from agentkit.kinds.sql import Sql
from agentkit.kinds.train import Train

_OURS: Mapping[Tag, Kind[Any]] = {
    kind.node_type.tag: kind
    for kind in (Infer(), Train(), Sql(), Source(), Split(), Local(), Request())
}


def kind_of(node: NodeBase) -> Kind[Any]:
    """Return the kind of a node; raises UnknownKind where no installed package brings it."""
    ours = _OURS.get(type(node).tag)
    return ours if ours is not None else _checked(outside_kind(node), node)


def bought_kind(node: NodeBase) -> BoughtKind[Any]:
    """Return the kind of a node that providers do; raises UnknownKind as `kind_of` does."""
    kind = kind_of(node)
    assert isinstance(kind, BoughtKind), node.name
    return kind


def local_kind(node: NodeBase) -> LocalKind[Any]:
    """Return the kind of a node that runs on this machine; raises UnknownKind as `kind_of` does."""
    kind = kind_of(node)
    assert isinstance(kind, LocalKind), node.name
    return kind


def _checked(kind: Any, node: NodeBase) -> Kind[Any]:
    """Return another package's kind; raises UnknownKind for an object that does not fit its nodes.

    A kind whose nodes are bought has other methods than one that runs here.
    """
    wanted = BoughtKind if isinstance(node, PaidNode) else LocalKind
    if not isinstance(kind, wanted):
        raise UnknownKind(
            f"node {node.name!r}: {type(kind).__qualname__}, the kind of a"
            f" {type(node).__qualname__}, is no {wanted.__name__}",
            hint=f"derive it from agentkit.kinds.kind.{wanted.__name__}",
        )
    return kind
