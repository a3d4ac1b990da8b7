"""What is said between a wallet and the process that has its key: one JSON object a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from agentkit.keys.messages import (
    Accept,
    Authorization,
    Delivery,
    ItemMessage,
    Quote,
    Release,
    Transfer,
    UnsignedTransaction,
    Voucher,
)

MOST_BYTES = 16 * 1024 * 1024
"""The longest line that is read: an item of a sealed segment, in hex, and room to spare."""

TYPED: Mapping[str, type[Any]] = {
    "sign_voucher": Voucher,
    "sign_release": Release,
    "sign_quote": Quote,
    "sign_accept": Accept,
    "sign_authorization": Authorization,
    "sign_transfer": Transfer,
    "sign_delivery": Delivery,
}
"""The operations on a typed message in a domain; there is none that signs any hash."""

BARE: Mapping[str, type[Any]] = {"sign_tx": UnsignedTransaction, "sign_item": ItemMessage}
"""The operations on messages that name no domain."""


def written(message: object) -> dict[str, Any]:
    """Return a message, or a domain, as JSON."""
    plain = {field.name: getattr(message, field.name) for field in _fields(type(message))}
    return {name: v.hex() if isinstance(v, bytes) else v for name, v in plain.items()}


def read(kind: type[Any], document: object) -> Any:
    """Return a message of a kind; raises ValueError for anything else."""
    known = {field.name: str(field.type) for field in _fields(kind)}
    if not isinstance(document, dict) or set(document) != set(known):
        raise ValueError(f"a {kind.__name__} has the fields {', '.join(known)}")
    return kind(**{name: _value(known[name], name, document[name]) for name in known})


def _fields(kind: Any) -> list[Any]:
    return [field for field in fields(kind) if field.init]


def _value(kind: str, name: str, given: object) -> object:
    if kind == "bytes" and isinstance(given, str):
        return bytes.fromhex(given)
    if kind == "int" and type(given) is int and 0 <= given < 2**256:
        return given
    if kind == "str" and isinstance(given, str):
        return given
    raise ValueError(f"{name} is no {kind}")
