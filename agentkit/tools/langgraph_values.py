"""LangGraph's own values as plain JSON; imported only where LangGraph is installed."""

from __future__ import annotations

import dataclasses
from typing import Any

from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send, TimeoutPolicy

from agentkit.tools.serialization import ValueKind


def _packed_send(send: Send) -> list[Any]:
    return [send.node, send.arg, send.timeout and dataclasses.asdict(send.timeout)]


def _send(node: str, arg: Any, timeout: dict[str, Any] | None) -> Send:
    return Send(node, arg, timeout=TimeoutPolicy(**timeout) if timeout else None)


def _packed_interrupt(interrupt: Interrupt) -> list[Any]:
    schema = interrupt.response_schema
    return [interrupt.value, interrupt.id, schema if isinstance(schema, dict) else None]


def _packed_command(command: Command[Any]) -> list[Any]:
    return [command.graph, command.update, command.resume, command.goto]


KINDS = (
    ValueKind("send", Send, _packed_send, lambda v: _send(*v)),
    ValueKind(
        "interrupt",
        Interrupt,
        _packed_interrupt,
        lambda v: Interrupt(v[0], v[1], response_schema=v[2]),
    ),
    ValueKind("overwrite", Overwrite, lambda v: v.value, Overwrite),
    ValueKind(
        "command",
        Command,
        _packed_command,
        lambda v: Command(graph=v[0], update=v[1], resume=v[2], goto=v[3]),
    ),
    ValueKind("snapshot", _DeltaSnapshot, lambda v: v.value, _DeltaSnapshot),
)
