"""Nodes of a kind that no installed package brings: kept as they were read, never planned or run.

A journal or a plan file outlives the packages of the machine that wrote it.  What such a run did
and paid can still be read, and is handed on unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ConfigDict, PrivateAttr, ValidationError, model_serializer

from agentkit.graph.callables import CallableSpec
from agentkit.graph.nodes import PaidNode

_FUNCTION_KEYS = frozenset(CallableSpec.model_fields)


class UnknownNode(PaidNode):
    """A node whose model is not installed: the fields that all nodes have, and its document.

    Whether its kind is bought is not known.  `verify` is read all the same, because the number of
    replicas is needed to show what a plan of it came to.
    """

    model_config = ConfigDict(extra="ignore")

    kind: str
    _document: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self | None:
        """Return the node of a document, or None for one that is wrong whatever its kind."""
        try:
            node = cls.model_validate(document)
        except ValidationError:
            return None
        node._document.update(document)
        return node

    @property
    def op(self) -> str:
        """The operation that the document names, "" where it names none."""
        op = self._document.get("op")
        return op if isinstance(op, str) else ""

    @model_serializer
    def _as_it_was_read(self) -> dict[str, Any]:
        return self._document

    def identity(self, *, code: bool = True) -> dict[str, Any]:
        """Return what the model would: where the files of functions stand is left out."""
        return {key: _bare(value, code=code) for key, value in self._document.items()}


def _bare(value: Any, *, code: bool) -> Any:
    """Return a value with every function in it bare, as `NodeBase.identity` has it.

    Functions are told by their keys, as there is no model to say where they stand.
    """
    if isinstance(value, list):
        return [_bare(inner, code=code) for inner in value]
    if not isinstance(value, dict):
        return value
    if {"module", "qualname"} <= value.keys() <= _FUNCTION_KEYS:
        try:
            return CallableSpec(**value).bare(code=code).model_dump(exclude_defaults=True)
        except ValidationError:
            pass  # something of the kind's own that is spelled alike
    return {key: _bare(inner, code=code) for key, inner in value.items()}
