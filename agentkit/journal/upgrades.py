"""Reads events that earlier versions of agentkit wrote ("upcasting" in event sourcing).

What is stored never changes, because hashes and sealed segments depend on the bytes.  So an event
of an earlier version is completed when it is read.  Fields that were added with a default need
nothing here.  A field that was added without one gets the value that says "not known then".

An entry stays for good.  Whoever adds a required field raises `events.VERSION` and adds its entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agentkit.journal.events import EVENTS, VERSION
from agentkit.market.seams import Event
from agentkit.market.tree import EMPTY

NO_ROOT = EMPTY.hex()
"""The root of a voucher that was signed before vouchers named the tree over their receipts."""

ADDED_FIELDS: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "VoucherSigned": (2, {"leaf": NO_ROOT}),
    "VoucherFound": (2, {"root": NO_ROOT}),
    "VoucherTaken": (2, {"root": NO_ROOT}),
    "Reserved": (2, {"provider": ""}),
    "EscrowGivenBack": (2, {"id": ""}),
}
"""By stored name: since which version an event has these fields, and their values before.

Events of version 1 were written while the set still grew, so some of them have the fields already.
"""


class NewerVersion(ValueError):
    """A newer agentkit wrote an event, and this one cannot read it."""


def read_event(kind: str, version: int, body: str) -> Event:
    """Return an event of this or an earlier version; raises NewerVersion, ValueError."""
    event = EVENTS.get(kind)
    if version > VERSION or event is None:
        raise NewerVersion(
            f"it is of version {version}, and this agentkit reads events up to version {VERSION}"
            if version > VERSION
            else f"this agentkit knows no event {kind!r}"
        )
    since, added = ADDED_FIELDS.get(kind, (0, {}))
    if version >= since:
        return event.model_validate_json(body)
    fields = json.loads(body)
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  # as pydantic's own errors
    return event.model_validate_json(json.dumps(dict(added) | fields))
