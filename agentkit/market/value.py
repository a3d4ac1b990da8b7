"""The base of every value that crosses a seam: frozen, closed, readable JSON."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A sha256 in lower-case hex, as others send it; nothing else may become a part of a path."""


class Value(BaseModel):
    """A frozen value with no fields but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def encode(self) -> str:
        """Return the value as JSON, fields at their defaults left out.

        So a default is part of the format: to change one, raise `journal.events.VERSION`.
        """
        return self.model_dump_json(exclude_defaults=True)


def digest_of(*parts: str | int | None) -> str:
    """Return sha256 over length-prefixed parts, so that no two lists of parts collide."""
    total = hashlib.sha256()
    for part in parts:
        text = "-" if part is None else str(part)
        total.update(f"{len(text.encode())}:{text}".encode())
    return total.hexdigest()
