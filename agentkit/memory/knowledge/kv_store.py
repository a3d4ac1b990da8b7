"""Shelves: named key-value stores of JSON, for libraries that store in the agent's memory.

Like everything the agent knows, entries are folded from events in the wallet's stream, so they are
sealed and restored with it.  A dropped entry is gone on this machine; its sealed bytes stay on
Arweave.
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


def join_name(*parts: str) -> str:
    """Return the name of an entry from its parts, as compact JSON: `["a","b"]`.

    JSON quotes what the parts contain, so different parts never give the same name.
    """
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def name_prefix(*parts: str) -> str:
    """Return the prefix of all names that `join_name` makes of these parts and further ones."""
    return join_name(*parts)[:-1] + ","


def split_name(name: str) -> list[str]:
    """Return the parts that `join_name` made a name of."""
    parts: list[str] = json.loads(name)
    return parts


class Entries:
    """The entries of one shelf inside one transaction."""

    def __init__(self, tx: Transaction, shelf: str) -> None:
        self._tx = tx
        self._shelf = shelf

    def get(self, name: str) -> Any:
        """Return an entry's value, None if there is no such entry."""
        entry = self.entry(name)
        return entry.value if entry else None

    def entry(self, name: str) -> r.Entry | None:
        """Return an entry with the time it was written, None if there is no such entry."""
        return self._tx.get(r.Entry, f"{self._shelf}|{name}")

    def __contains__(self, name: str) -> bool:
        return self.entry(name) is not None

    def every(self, prefix: str = "") -> list[r.Entry]:
        """Return the entries whose names begin with `prefix`, sorted by name."""
        return self._tx.every(r.Entry, f"{self._shelf}|{prefix}")

    def put(self, entries: Mapping[str, Any]) -> None:
        """Write entries, in as few events as possible; raises WrongInput for a value not JSON."""
        for batch in _batches(entries):
            self._tx.append(e.WALLET, e.Shelved(shelf=self._shelf, entries=batch))

    def drop(self, names: Iterable[str] = (), prefixes: Iterable[str] = ()) -> None:
        """Drop entries by name or by prefix; a name without an entry is ignored.

        If nothing would be dropped, no event is written.
        """
        present_names = tuple(name for name in dict.fromkeys(names) if name in self)
        used_prefixes = tuple(prefixes)
        if not any(map(self.every, used_prefixes)):
            used_prefixes = ()
        if present_names or used_prefixes:
            dropped = e.Unshelved(shelf=self._shelf, names=present_names, prefixes=used_prefixes)
            self._tx.append(e.WALLET, dropped)


class Shelf:
    """A named key-value store in an agent's memory; usable from any event loop of the process."""

    def __init__(self, journal: Journal, name: str) -> None:
        check_name(name, "shelf")
        if "|" in name:  # records are found by "shelf|name"
            raise WrongInput(f"{name!r} cannot name a shelf", hint='leave out "|"')
        self._journal = journal
        self.name = name

    def commit(self, work: Callable[[Entries], T]) -> asyncio.Future[T]:
        """Call `work` with the entries inside one transaction; see `Journal.commit`."""
        return self._journal.commit(lambda tx: work(Entries(tx, self.name)))

    async def get(self, name: str) -> Any:
        """Return an entry's value, None if there is no such entry."""
        return await self.commit(lambda entries: entries.get(name))

    async def put(self, entries: Mapping[str, Any]) -> None:
        """Write entries; raises WrongInput for a value that is not JSON or larger than 1 MiB."""
        await self.commit(lambda stored: stored.put(entries))

    async def drop(self, *names: str, prefixes: Iterable[str] = ()) -> None:
        """Drop entries by name or prefix; their earlier bytes stay sealed on Arweave."""
        await self.commit(lambda entries: entries.drop(names, prefixes))

    async def names(self, prefix: str = "") -> list[str]:
        """Return the names that begin with `prefix`, in order."""
        entries = await self.commit(lambda stored: stored.every(prefix))
        return [entry.name for entry in entries]


def _batches(entries: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield entries in batches of bounded size; raises WrongInput before the first is yielded."""
    sizes = {name: _checked_size(name, value) for name, value in entries.items()}
    batch: dict[str, Any] = {}
    batch_size = 0
    for name, value in entries.items():
        if batch and batch_size + sizes[name] > MOST_ENTRY:
            yield batch
            batch = {}
            batch_size = 0
        batch[name] = value
        batch_size += sizes[name]
    if batch:
        yield batch


def _checked_size(name: str, value: Any) -> int:
    """Return the size of an entry; raises WrongInput if it cannot be stored."""
    check_text(name, "name on a shelf", MOST_ENTRY)
    return len(name) + check_json(value, f"entry {name[:60]!r}", MOST_ENTRY)
