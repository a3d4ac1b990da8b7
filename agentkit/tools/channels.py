"""How the values of a LangGraph channel are stored, version by version.

A value is stored as `{"is": value}`.  A list that grew is stored as the parts that it `added`
`after` another version, so that a growing conversation is not stored again with every message.  Its
`length` and a `digest` over all its parts show whether the next version begins with them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from agentkit.errors import StateCorrupt

MOST_LINK = 256 * 1024
"""The most bytes of a list's parts that are stored in one entry."""

Get = Callable[[str], Any]
"""Returns the stored entry of a version, None or an empty one if there is nothing."""


class ChannelValue(NamedTuple):
    """A channel's value as plain JSON.

    For a list, `sizes` are the bytes of each part, and `digests[n]` is the hash over the first `n`
    parts.
    """

    value: Any
    digests: tuple[bytes, ...] = ()
    sizes: tuple[int, ...] = ()

    @classmethod
    def of(cls, value: Any) -> ChannelValue:
        """Return a value with its digests and sizes, which are computed outside of transactions."""
        if not isinstance(value, list):
            return cls(value)
        hasher = hashlib.sha256()
        digests = [hasher.digest()]
        sizes: list[int] = []
        for part in value:
            text = json.dumps(part).encode()
            hasher.update(text + b"\n")
            digests.append(hasher.digest())
            sizes.append(len(text))
        return cls(value, digests=tuple(digests), sizes=tuple(sizes))

    def stored(self, version: str, older: str, get: Get) -> dict[str, Any]:
        """Return the entries to store, by version.

        A list that begins with that of the `older` version refers to it.  A long addition becomes
        several entries, "VERSION/0", "VERSION/1" and so on, each after the one before.
        """
        if not self.digests:
            return {version: {"is": self.value}}

        stored_length = 0
        after = ""
        older_entry = get(older) if older != version else None
        if older_entry and self._begins_with(older_entry):
            stored_length = older_entry["length"]
            after = older

        links: dict[str, Any] = {}
        *full_batches, last_batch = _batches(self.value[stored_length:], self.sizes[stored_length:])
        for number, added in enumerate(full_batches):
            link = f"{version}/{number}"
            links[link] = _link(added, after)
            after = link
        summary = {"length": len(self.value), "digest": self._digest(len(self.value))}
        links[version] = summary | _link(last_batch, after)
        return links

    def _begins_with(self, entry: dict[str, Any]) -> bool:
        """Whether this list begins with all parts of a stored one."""
        length = entry.get("length", 0)
        return 0 < length < len(self.digests) and bool(entry["digest"] == self._digest(length))

    def _digest(self, length: int) -> str:
        """Return the digest over the first parts, shortened to 15 bytes."""
        return base64.b64encode(self.digests[length][:15]).decode()


def read(version: str, get: Get) -> Any:
    """Return the value of a stored version; raises StateCorrupt if a part of it is missing."""
    stored = get(version)
    if "is" in stored:
        return stored["is"]
    links = [get(link) for link in chain(version, get)]
    if not all(links):
        raise StateCorrupt(f"what version {version} of a channel stands on is missing")
    return [part for link in reversed(links) for part in link["added"]]


def chain(version: str, get: Get) -> Iterator[str]:
    """Yield the versions that contain parts of a version's value, the newest first."""
    while version:
        yield version
        version = (get(version) or {}).get("after", "")


def _link(added: list[Any], after: str) -> dict[str, Any]:
    return {"added": added} | ({"after": after} if after else {})


def _batches(parts: Sequence[Any], sizes: Sequence[int]) -> Iterator[list[Any]]:
    """Yield parts in batches of bounded size; at least one batch, which may be empty."""
    batch: list[Any] = []
    batch_size = 0
    for part, part_size in zip(parts, sizes, strict=True):
        if batch and batch_size + part_size > MOST_LINK:
            yield batch
            batch = []
            batch_size = 0
        batch.append(part)
        batch_size += part_size
    yield batch
