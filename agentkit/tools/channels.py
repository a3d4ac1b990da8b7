"""The value of a LangGraph channel, version by version: of a list that grew, only what was added.

A version is stored as `{"is": value}`; a list as the parts it `added` `after` another version, its
`length` and a `digest` over all parts, by which the next version knows whether it begins with them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from agentkit.errors import StateCorrupt

MOST_LINK = 256 * 1024
"""Bytes of a list's parts that are stored under one version."""

Get = Callable[[str], Any]
"""From a version to what is stored of it, None or empty for nothing."""


class ChannelValue(NamedTuple):
    """A channel's value; of a list also digests over its first 0, 1... parts, and all sizes."""

    value: Any
    digests: tuple[bytes, ...] = ()
    sizes: tuple[int, ...] = ()

    @classmethod
    def of(cls, value: Any) -> ChannelValue:
        """Return what is to be known of a value of plain JSON before it is stored."""
        if not isinstance(value, list):
            return cls(value)
        total = hashlib.sha256()
        digests, sizes = [total.digest()], []
        for part in value:
            text = json.dumps(part).encode()
            total.update(text + b"\n")
            digests.append(total.digest())
            sizes.append(len(text))
        return cls(value, tuple(digests), tuple(sizes))

    def stored(self, version: str, older: str, get: Get) -> dict[str, Any]:
        """Return what is stored, by version, after an `older` one; long lists in several links."""
        if not self.digests:
            return {version: {"is": self.value}}
        first, after = (0, "")
        last = get(older) if older != version else None
        if last and self._begins_with(last):
            first, after = last["length"], older
        links: dict[str, Any] = {}
        *before, newest = _stretches(self.value[first:], self.sizes[first:])
        for number, added in enumerate(before):
            links[f"{version}/{number}"] = _link(added, after)
            after = f"{version}/{number}"
        whole = {"length": len(self.value), "digest": self._digest(len(self.value))}
        return links | {version: whole | _link(newest, after)}

    def _begins_with(self, last: dict[str, Any]) -> bool:
        length = last.get("length", 0)
        return 0 < length < len(self.digests) and bool(last["digest"] == self._digest(length))

    def _digest(self, length: int) -> str:
        return base64.b64encode(self.digests[length][:15]).decode()


def read(version: str, get: Get) -> Any:
    """Return the value of a version that is stored; raises StateCorrupt where a link is missing."""
    stored = get(version)
    if "is" in stored:
        return stored["is"]
    links = [get(link) for link in chain(version, get)]
    if not all(links):
        raise StateCorrupt(f"what version {version} of a channel stands on is missing")
    return [part for link in reversed(links) for part in link["added"]]


def chain(version: str, get: Get) -> Iterator[str]:
    """Yield the versions that a version's value is made of, itself first."""
    while version:
        yield version
        version = (get(version) or {}).get("after", "")


def _link(added: list[Any], after: str) -> dict[str, Any]:
    return {"added": added} | ({"after": after} if after else {})


def _stretches(parts: Sequence[Any], sizes: Sequence[int]) -> Iterator[list[Any]]:
    """Yield parts in order in stretches of bounded size, at least one."""
    stretch: list[Any] = []
    size = 0
    for part, more in zip(parts, sizes, strict=True):
        if stretch and size + more > MOST_LINK:
            yield stretch
            stretch, size = [], 0
        stretch.append(part)
        size += more
    yield stretch
