"""What nodes produce: bytes with a sha256 identity, and where those bytes can be found.

The digest is the identity; locators (`journal:`, `file:`, `ar://…`, `ipfs://…`) only say where
to look.  Tables of every kind are JSON Lines in UTF-8, one object a row.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar, Self

from agentkit import strict_json
from agentkit.errors import StateCorrupt, StoreUnavailable, WrongInput
from agentkit.strict_json import BadJson
from agentkit.tables import (
    Columns,
    columns_of,
    decode_columns,
    encode_columns,
    read_rows,  # noqa: F401  # its first home; programs import it from here
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """Bytes named by their sha256; `content` is the bytes, or the file that holds them.

    Bytes were checked against the digest when they were attached, a file is whenever it is read.
    """

    kind: ClassVar[str]
    default_media_type: ClassVar[str] = "application/octet-stream"

    digest: str
    size: int
    media_type: str
    locators: tuple[str, ...] = ()
    content: bytes | Path | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, data: bytes, media_type: str = "") -> Self:
        """Return the artifact of these bytes."""
        digest = hashlib.sha256(data).hexdigest()
        return cls(digest, len(data), media_type or cls.default_media_type, (), data)

    def read(self) -> bytes:
        """Return the bytes, their digest checked; raises StateCorrupt, StoreUnavailable."""
        if self.content is None:
            raise StoreUnavailable(f"the bytes of artifact {self.digest[:12]} are not at hand")
        if isinstance(self.content, bytes):
            return self.content
        return self._checked(self.content.read_bytes())

    def open(self) -> BinaryIO:
        """Return the bytes as a file, unchecked; raises StoreUnavailable."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        return self.path.open("rb")

    @property
    def path(self) -> Path:
        """Where the bytes lie as a file; raises StoreUnavailable when they do not."""
        if not isinstance(self.content, Path):
            raise StoreUnavailable(f"artifact {self.digest[:12]} is not a file on this machine")
        return self.content

    def _checked(self, data: bytes) -> bytes:
        if hashlib.sha256(data).hexdigest() != self.digest:
            raise StateCorrupt(f"artifact {self.digest[:12]} does not hash to its own name")
        return data

    def located(self, *locators: str, content: bytes | Path | None = None) -> Self:
        """Return this artifact with further locators, and with `content` if it is given.

        Raises StateCorrupt when bytes are given that do not hash to the digest.
        """
        if isinstance(content, bytes):
            self._checked(content)
        known = tuple(dict.fromkeys((*self.locators, *locators))) if locators else self.locators
        at_hand = self.content if content is None else content
        return type(self)(self.digest, self.size, self.media_type, known, at_hand)

    @property
    def locator(self) -> str:
        """The first place to look, remote before local; empty when there is none."""
        return next((at for at in self.locators if "://" in at), next(iter(self.locators), ""))


@dataclass(frozen=True, slots=True)
class Blob(Artifact):
    """Bytes with no further meaning."""

    kind: ClassVar[str] = "blob"


@dataclass(frozen=True, slots=True)
class Text(Artifact):
    """UTF-8 text."""

    kind: ClassVar[str] = "text"
    default_media_type: ClassVar[str] = "text/plain; charset=utf-8"

    @property
    def text(self) -> str:
        return self.read().decode()


@dataclass(frozen=True, slots=True)
class Json(Artifact):
    """One JSON value."""

    kind: ClassVar[str] = "json"
    default_media_type: ClassVar[str] = "application/json"

    @classmethod
    def dump(cls, value: Any) -> Self:
        """Return the artifact of a JSON value; raises WrongInput for what JSON cannot hold."""
        return cls.of(_json(value))

    @property
    def value(self) -> Any:
        """The value; raises BadJson (a ValueError) for bytes that are not JSON."""
        return strict_json.loads(self.read())


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish that a tool is called; the caller of the model calls it, or does not."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply(Json):
    """A model's message that may call tools: one JSON object in the form of OpenAI's chat API."""

    kind: ClassVar[str] = "reply"

    @property
    def text(self) -> str:
        """What the model says beside its calls, "" for nothing; raises as `value`."""
        return self.value.get("content") or ""

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that the model asks for, in its order; raises as `value`."""
        return tuple(
            ToolCall(
                call["id"],
                call["function"]["name"],
                strict_json.loads(call["function"]["arguments"]),
            )
            for call in self.value.get("tool_calls") or ()
        )


@dataclass(frozen=True, slots=True)
class Table(Artifact):
    """Rows, as JSON Lines."""

    kind: ClassVar[str] = "table"
    default_media_type: ClassVar[str] = "application/jsonl"

    @classmethod
    def dump(
        cls, rows: Iterable[Mapping[str, Any]], columns: Columns = MappingProxyType({})
    ) -> Self:
        """Return the table of these rows; raises WrongInput for what JSON cannot hold.

        `columns` are told by the media type where there are no rows, which tell them otherwise.
        """
        data = b"".join(_json(dict(row)) + b"\n" for row in rows)
        if data or not columns:
            return cls.of(data)
        return cls.of(data, f"{cls.default_media_type}; {encode_columns(columns)}")

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows; raises BadJson (a ValueError) for bytes that are not JSON Lines."""
        return [strict_json.loads(line) for line in self.read().split(b"\n") if line.strip()]

    @property
    def columns(self) -> Columns:
        """The columns and what they hold, also where there are no rows."""
        return columns_of(self.rows()) or decode_columns(self.media_type)


@dataclass(frozen=True, slots=True)
class Dataset(Table):
    """A table that nodes map over, split and train on."""

    kind: ClassVar[str] = "dataset"


@dataclass(frozen=True, slots=True)
class Embedding(Table):
    """Vectors: rows with a `vector` of floats."""

    kind: ClassVar[str] = "embedding"


@dataclass(frozen=True, slots=True)
class Model(Artifact):
    """Trained weights; the media type says which trainer reads them."""

    kind: ClassVar[str] = "model"


KINDS: dict[str, type[Artifact]] = {
    cls.kind: cls for cls in (Blob, Text, Json, Reply, Table, Dataset, Embedding, Model)
}
"""Every kind of artifact by its name on the wire and in the journal."""


def _json(value: Any) -> bytes:
    try:
        return strict_json.dumps(value)
    except BadJson as error:
        raise WrongInput(
            f"a value cannot be stored as JSON: {error}",
            hint="return plain numbers, text, lists and dicts from a local node",
        ) from error
