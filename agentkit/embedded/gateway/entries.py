"""Transactions and data items as the gateway indexes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from agentkit.embedded.gateway.search import Search, marks
from agentkit.memory.arweave.base64url import name_of, unb64url
from agentkit.memory.arweave.tags import Tags


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A transaction or a data item; texts are base64url, amounts in winston.

    An item has its data under `digest`; a transaction has a `header` (its JSON) and its data in
    chunks under `root`.  `number` is the order of arrival.
    """

    id: str
    owner: str
    signature: str
    anchor: str
    target: str
    size: int
    reward: int = 0
    quantity: int = 0
    digest: str = ""
    root: str = ""
    header: str = ""
    bundled_in: str = ""
    height: int | None = None
    number: int = 0
    tags: Tags = ()

    @property
    def address(self) -> str:
        return name_of(unb64url(self.owner))


# All but the number, which SQLite gives, and the tags, which are rows of their own.
_COLUMNS = tuple(field.name for field in fields(IndexEntry))[:-2]
_INSERT = (
    f"insert or ignore into entry ({', '.join(_COLUMNS)}, address)"  # noqa: S608
    f" values ({marks((*_COLUMNS, ''))}) returning number"
)
_SELECT = f"select {', '.join(_COLUMNS)}, number from entry where "  # noqa: S608


class EntryIndex:
    """The rows of `entry` and `tag`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, entry: IndexEntry) -> None:
        """Write a new entry; one whose id is there already stays as it is."""
        values = [getattr(entry, column) for column in _COLUMNS]
        row = self._database.execute(_INSERT, (*values, entry.address)).fetchone()
        if row:
            self._database.executemany(
                "insert into tag values (?, ?, ?, ?)",
                [(row[0], place, *tag) for place, tag in enumerate(entry.tags)],
            )

    def get(self, name: str) -> IndexEntry | None:
        """Return the entry of an id."""
        return next(iter(self._select("id = ?", [name])), None)

    def pending(self) -> list[IndexEntry]:
        """Return what no block holds yet, in order of arrival."""
        return self._select("height is null order by number")

    def of_root(self, root: str, size: int) -> list[IndexEntry]:
        """Return the transactions whose data this is."""
        return self._select("root = ? and size = ?", [root, size])

    def confirm(self, entry: IndexEntry, height: int) -> None:
        """Put an entry into the block at `height`."""
        self._database.execute("update entry set height = ? where id = ?", (height, entry.id))

    def above(self, height: int) -> list[IndexEntry]:
        """Return what lies in blocks above a height, in order of arrival."""
        return self._select("height > ? order by number", [height])

    def put_back(self, entry: IndexEntry) -> None:
        """Have an entry wait for a block again."""
        self._database.execute("update entry set height = null where id = ?", (entry.id,))

    def forget(self, entry: IndexEntry) -> None:
        """Take an entry out of the index, with all that it bundles."""
        for (name,) in self._database.execute(
            "select id from entry where id = ? or bundled_in = ?", (entry.id, entry.id)
        ).fetchall():
            self._database.execute(
                "delete from tag where entry = (select number from entry where id = ?)", (name,)
            )
            self._database.execute("delete from entry where id = ?", (name,))

    def relocate(self, entry: IndexEntry, digest: str) -> None:
        """Say under which digest the data of an item lies now, "" for nowhere."""
        self._database.execute("update entry set digest = ? where id = ?", (digest, entry.id))

    def newest(self, skipped: int) -> int:
        """Return the number of the newest entry but `skipped`; 0 when there is none."""
        found = self._database.execute(
            "select number from entry order by number desc limit 1 offset ?", (skipped,)
        ).fetchone()
        return int(found[0]) if found else 0

    def search(self, search: Search) -> list[IndexEntry]:
        """Return a page of entries, by height and then by arrival."""
        return self._select(*search.sql())

    def _select(self, where: str, values: Sequence[object] = ()) -> list[IndexEntry]:
        rows = self._database.execute(_SELECT + where, values).fetchall()
        tags = self._tags([row[-1] for row in rows])
        return [replace(IndexEntry(*row), tags=tuple(tags.get(row[-1], ()))) for row in rows]

    def _tags(self, numbers: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
        """Return the tags of entries, by the entry's number."""
        rows = self._database.execute(
            "select entry, name, value from tag"  # noqa: S608
            f" where entry in ({marks(numbers)}) order by entry, position",
            numbers,
        )
        tags: dict[int, list[tuple[str, str]]] = {}
        for number, *tag in rows:
            tags.setdefault(number, []).append((tag[0], tag[1]))
        return tags
