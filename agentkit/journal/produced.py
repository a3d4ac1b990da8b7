"""How events and records name an artifact."""

from __future__ import annotations

from typing import Any

from agentkit.artifacts import KINDS, Artifact
from agentkit.market.value import Value

TINY_BYTES = 512
"""Text up to this size stands in the event itself: one page less to write for each node."""


class Produced(Value):
    """An artifact as events name it: its kind, its digest and where its bytes are.

    `text` is the content itself where that is short text.  An empty `media_type` means the
    default media type of the kind.
    """

    kind: str
    digest: str
    size: int
    media_type: str = ""
    locators: tuple[str, ...] = ()
    text: str | None = None

    @classmethod
    def of(cls, artifact: Artifact) -> Produced:
        """Describe an artifact; its bytes are read if they are few."""
        fields: dict[str, Any] = {}
        if artifact.media_type != artifact.default_media_type:
            fields["media_type"] = artifact.media_type
        if artifact.locators:
            fields["locators"] = artifact.locators
        if artifact.size <= TINY_BYTES:
            fields["text"] = _text_of(artifact.read())
        return cls(kind=artifact.kind, digest=artifact.digest, size=artifact.size, **fields)

    def artifact(self) -> Artifact:
        """Return the artifact, with its bytes only if they stand here; raises StateCorrupt."""
        kind = KINDS[self.kind]
        bare = kind(self.digest, self.size, self.media_type or kind.default_media_type)
        content = None if self.text is None else self.text.encode()
        return bare.located(*self.locators, content=content)


def _text_of(data: bytes) -> str | None:
    """Return bytes as text, None if they are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
