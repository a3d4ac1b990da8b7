"""The protocol between a wallet and the process that has its key: one JSON object a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from agentkit.keys.channel_messages import ChannelVoucher, ClaimBatch, Order, Refund
from agentkit.keys.messages import (
    Accept,
    Delivery,
    ItemMessage,
    Quote,
    ReceiveAuthorization,
    Release,
    TransferAuthorization,
    UnsignedTransaction,
    Voucher,
)
from agentkit.keys.permit2_messages import UptoPermit
from agentkit.keys.statement_messages import OfferStatement, ReceiptStatement

MAX_BYTES = 16 * 1024 * 1024
"""The longest line that is read: a sealed segment's item in hex fits, with room to spare."""

TYPED: Mapping[str, type[Any]] = {
    "sign_voucher": Voucher,
    "sign_release": Release,
    "sign_quote": Quote,
    "sign_accept": Accept,
    "sign_authorization": ReceiveAuthorization,
    "sign_transfer": TransferAuthorization,
    "sign_delivery": Delivery,
    "sign_channel_voucher": ChannelVoucher,
    "sign_refund": Refund,
    "sign_claims": ClaimBatch,
    "sign_order": Order,
    "sign_upto": UptoPermit,
    "sign_offer": OfferStatement,
    "sign_receipt": ReceiptStatement,
}
"""The operations on a typed message in a domain (EIP-712); none of them signs a bare hash."""

BARE: Mapping[str, type[Any]] = {"sign_tx": UnsignedTransaction, "sign_item": ItemMessage}
"""The operations on messages that name no domain."""


def written(message: object) -> dict[str, Any]:
    """Return a message, or a domain, as JSON, bytes in hex."""
    document: dict[str, Any] = {}
    for field in _fields(type(message)):
        value = getattr(message, field.name)
        document[field.name] = value.hex() if isinstance(value, bytes) else value
    return document


def read(kind: type[Any], document: object) -> Any:
    """Return a message of a kind; raises ValueError for anything else."""
    types = {field.name: str(field.type) for field in _fields(kind)}
    if not isinstance(document, dict) or set(document) != set(types):
        raise ValueError(f"a {kind.__name__} has the fields {', '.join(types)}")
    values = {name: _value(types[name], name, document[name]) for name in types}
    return kind(**values)


def _fields(kind: Any) -> list[Any]:
    return [field for field in fields(kind) if field.init]


def _value(type_name: str, field: str, value: object) -> object:
    """Return a field's value of the named type; raises ValueError for any other."""
    if type_name == "bytes" and isinstance(value, str):
        return bytes.fromhex(value)
    # bool is an int for isinstance, and is not one here.
    if type_name == "int" and type(value) is int and 0 <= value < 2**256:
        return value
    if type_name == "str" and isinstance(value, str):
        return value
    raise ValueError(f"{field} is not a valid {type_name}")
