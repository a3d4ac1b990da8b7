"""Shelves: plain JSON by name, for what stands on the agent's memory.

Like everything the agent knows, entries are folded from events in the wallet's stream: sealed with
it, restored with it, and gone from here but not from Arweave once they are dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from agentkit.errors import WrongInput
from agentkit.journal import events as e
from agentkit.journal import records as r
from agentkit.journal.journal import Journal
from agentkit.market.seams import Transaction
from agentkit.memory.knowledge.validation import (
    MOST_ENTRY,
    check_json,
    check_name,
    check_text,
)

T = TypeVar("T")


def joined(*parts: str) -> str:
    """Return the name of an entry that is found by its parts, unambiguous whatever they hold."""
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def beginning(*parts: str) -> str:
    """Return how the names begin that are joined from these parts and more."""
    return joined(*parts)[:-1] + ","


def parted(name: str) -> list[str]:
    """Return what a name was joined from."""
    parts: list[str] = json.loads(name)
    return parts


class Entries:
    """A shelf's entries inside one transaction."""

    def __init__(self, tx: Transaction, shelf: str) -> None:
        self._tx, self._shelf = tx, shelf

    def get(self, name: str) -> Any:
        """Return an entry's value, None when there is none."""
        found = self.entry(name)
        return found.value if found else None

    def entry(self, name: str) -> r.Entry | None:
        """Return an entry with when it was written, None when there is none."""
        return self._tx.get(r.Entry, f"{self._shelf}|{name}")

    def __contains__(self, name: str) -> bool:
        return self.entry(name) is not None

    def every(self, prefix: str = "") -> list[r.Entry]:
        """Return the entries whose names begin with `prefix`, in the order of their names."""
        return self._tx.every(r.Entry, f"{self._shelf}|{prefix}")

    def put(self, entries: Mapping[str, Any]) -> None:
        """Write entries, as few events as they fit in; raises WrongInput for what is no JSON."""
        for part in _parts(entries):
            self._tx.append(e.WALLET, e.Shelved(shelf=self._shelf, entries=part))

    def drop(self, names: Iterable[str] = (), prefixes: Iterable[str] = ()) -> None:
        """Drop entries by name or by how their names begin; what is not there is no error."""
        gone = tuple(name for name in dict.fromkeys(names) if name in self)
        begun = tuple(prefixes)
        if not any(map(self.every, begun)):
            begun = ()
        if gone or begun:
            self._tx.append(e.WALLET, e.Unshelved(shelf=self._shelf, names=gone, prefixes=begun))


class Shelf:
    """A named shelf of an agent's memory; usable from any loop of the process."""

    def __init__(self, journal: Journal, name: str) -> None:
        check_name(name, "shelf")
        if "|" in name:
            raise WrongInput(f"{name!r} cannot name a shelf", hint='leave out "|"')
        self._journal, self.name = journal, name

    def commit(self, work: Callable[[Entries], T]) -> asyncio.Future[T]:
        """Do a work on the entries in one transaction; see `Journal.commit`."""
        return self._journal.commit(lambda tx: work(Entries(tx, self.name)))

    async def get(self, name: str) -> Any:
        """Return an entry's value, None when there is none."""
        return await self.commit(lambda entries: entries.get(name))

    async def put(self, entries: Mapping[str, Any]) -> None:
        """Write entries; raises WrongInput for what is no JSON or larger than 1 MiB."""
        await self.commit(lambda known: known.put(entries))

    async def drop(self, *names: str, prefixes: Iterable[str] = ()) -> None:
        """Drop entries: a tombstone, what was sealed before stays sealed on Arweave."""
        await self.commit(lambda entries: entries.drop(names, prefixes))

    async def names(self, prefix: str = "") -> list[str]:
        """Return the names that begin with `prefix`, in order."""
        found = await self.commit(lambda entries: entries.every(prefix))
        return [entry.name for entry in found]


def _parts(entries: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield entries in stretches of bounded size, all of them checked before the first."""
    sizes = {name: _size(name, value) for name, value in entries.items()}
    part: dict[str, Any] = {}
    size = 0
    for name, value in entries.items():
        if part and size + sizes[name] > MOST_ENTRY:
            yield part
            part, size = {}, 0
        part[name] = value
        size += sizes[name]
    if part:
        yield part


def _size(name: str, value: Any) -> int:
    check_text(name, "name on a shelf", MOST_ENTRY)
    return len(name) + check_json(value, f"entry {name[:60]!r}", MOST_ENTRY)
