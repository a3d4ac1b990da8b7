"""Base class of the values that rooms exchange: frozen, without unknown fields, JSON."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A sha256 in lower-case hex.  Others send it, and it becomes part of paths, so it is checked."""


class Value(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def encode(self) -> str:
        """Return the value as JSON without the fields that have their defaults.

        So a default is part of the stored format: to change one, raise `journal.events.VERSION`.
        """
        return self.model_dump_json(exclude_defaults=True)


def digest_of(*parts: str | int | None) -> str:
    """Return the sha256 over parts, as hex.

    Each part has its length before it, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        text = "-" if part is None else str(part)
        digest.update(f"{len(text.encode())}:{text}".encode())
    return digest.hexdigest()
